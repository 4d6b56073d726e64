# SPDX-License-Identifier: Apache-2.0
"""boto3 clients for the operator's commands: of a site on this machine by its data folder, or of AWS by a profile."""

from __future__ import annotations

import argparse
import configparser
import json
import os
from pathlib import Path
from typing import Any

from edgefleet.errors import FleetError, InputError
from edgefleet.siteconfig import READY_FILE

DEFAULT_DATA = "edgefleet-data"
PROFILE = "edgefleet"
# A poll or a page may meet a restarting server; these commands would rather wait a few seconds than give up.
_RETRIES: Any = {"max_attempts": 5, "mode": "standard"}


def add_arguments(parser: argparse.ArgumentParser, default: Any = None) -> None:
    """The options that say which service a command speaks to (read by `connect`)."""
    group = parser.add_argument_group("connection")
    group.add_argument("--data", type=Path, default=default, metavar="DIR",
                       help=f"data folder of a site here (default $EDGEFLEET_DATA or ./{DEFAULT_DATA})")  # fmt: skip
    group.add_argument("--profile", default=default, help="AWS profile to use instead of a data folder")
    group.add_argument("--endpoint-url", default=default, metavar="URL", help="another endpoint than the profile's")
    group.add_argument("--region", default=default, help="another region than the profile's")


def data_folder(given: Path | None) -> Path:
    """`given`, else $EDGEFLEET_DATA, else ./edgefleet-data."""
    return given if given is not None else Path(os.environ.get("EDGEFLEET_DATA") or DEFAULT_DATA)


def connect(args: argparse.Namespace, service: str) -> Any:
    """A boto3 client of `service` for the options of `add_arguments`. Raises InputError saying what is missing.

    With --profile (or --endpoint-url and no --data) boto3's usual configuration rules; otherwise everything comes from
    the site's data folder and the environment's AWS_* settings do not interfere.
    """
    # Loaded here: half a second that commands without a network do not need.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        if args.data is None and (args.profile or args.endpoint_url):
            session: Any = boto3.Session(profile_name=args.profile, region_name=args.region)
            config = Config(retries=_RETRIES, signature_version=_signature(service))
            return session.client(service, endpoint_url=args.endpoint_url, config=config)
        return _of_site(args, service)
    except (BotoCoreError, ValueError) as error:
        raise InputError(str(error)) from None


def _signature(service: str) -> str | None:
    """botocore would presign for S3 with version 2, which new buckets do not take; None: its default."""
    return "s3v4" if service == "s3" else None


def _of_site(args: argparse.Namespace, service: str) -> Any:
    import boto3
    import botocore.session
    from botocore.config import Config

    folder = data_folder(args.data) / "aws"
    profile = args.profile or PROFILE
    settings = _profile(folder / "config", f"profile {profile}")
    keys = _profile(folder / "credentials", profile)
    core = botocore.session.Session(profile=profile)
    core.set_config_variable("config_file", str(folder / "config"))
    core.set_config_variable("credentials_file", str(folder / "credentials"))
    session: Any = boto3.Session(
        aws_access_key_id=keys.get("aws_access_key_id"),
        aws_secret_access_key=keys.get("aws_secret_access_key"),
        region_name=args.region or settings.get("region"),
        botocore_session=core,
    )
    config = Config(
        retries=_RETRIES,
        signature_version=_signature(service),
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        proxies={},
    )
    url = args.endpoint_url or settings.get("endpoint_url")
    return session.client(service, endpoint_url=url, verify=settings.get("ca_bundle"), config=config)


def _profile(path: Path, section: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise InputError(
            f"{path.parent.parent}: holds no site; start one with `edgefleet up --data …`, name its folder with --data "
            "or EDGEFLEET_DATA, or choose an AWS profile with --profile"
        ) from None
    except (configparser.Error, OSError, UnicodeError) as error:
        raise InputError(f"{path}: {error}") from None
    if not parser.has_section(section):
        raise InputError(f"{path}: has no section [{section}]")
    return dict(parser[section])


def site_facts(args: argparse.Namespace) -> dict[str, Any]:
    """What the site of the data folder said when it last came up (`edgefleet.site.Ready`). Raises InputError."""
    path = data_folder(args.data) / READY_FILE
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; start the site once with `edgefleet up`") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
    return facts


def download(args: argparse.Namespace, url: str) -> bytes:
    """GET a presigned https link that the service gave us. Raises FleetError."""
    from botocore.awsrequest import AWSRequest
    from botocore.httpsession import URLLib3Session
    from botocore.utils import get_environ_proxies

    if not url.startswith("https://"):
        raise FleetError(f"the service gave a link that is not https: {url[:100]}")
    own_site = args.data is not None or not (args.profile or args.endpoint_url)
    verify: Any = True
    proxies = get_environ_proxies(url)
    if own_site:
        proxies = {}
        settings = _profile(data_folder(args.data) / "aws" / "config", f"profile {args.profile or PROFILE}")
        verify = settings.get("ca_bundle", True)
    response = URLLib3Session(verify=verify, proxies=proxies).send(AWSRequest("GET", url).prepare())
    if response.status_code != 200:
        raise FleetError(f"a report could not be fetched: HTTP {response.status_code}")
    return bytes(response.content)
