-- SPDX-License-Identifier: Apache-2.0
-- What the site has set up by itself, once. What an operator removes afterwards stays removed.

CREATE TABLE site_setup (
    step TEXT PRIMARY KEY,
    done_at REAL NOT NULL           -- epoch seconds
) WITHOUT ROWID;
