# SPDX-License-Identifier: Apache-2.0
"""Keys of the other algorithms, made with nothing but the standard library, for update tests on both runtimes.

As ota_support.Key: `public`, `id`, `algorithm`, `sign(digest)`.
"""

from tests.portable.ota_support import sha

# A key of 2048 bits that signs nothing but these tests.
_N = (
    "b0805eabf245509f1496fbf3dc4f5e5a929306cab5bec542e6da5f89316dee28438e84467eae7ec55fcc7037ea7923f14cb9"
    "ed372261d2e3b8fa01d3424c9c3d829a07f2f10deea6f85997114df1a5d383385abf9d8fa33219f6db1021b1a1b1ae625c4e"
    "af885831eb51f522873fbb263fa7852e4ba5ecfb059879b237b5b577ba07e7c69f301a1335d4c927084bd9873fadd5056963"
    "279fd766f577f557e9f55c6b5b354d85ce37f03d7997305f36b4875b798937a55b38e35f2128ec7ed345d4023f151c341bab"
    "e2214014c4d945eec120a62cecb3df6c8a7960f9152bb70dad90da9f62a39a4c01498ce1391902d73dd63dd381e6f37f822d"
    "f0d1e0442a59"
)
_D = (
    "431b53a371963c1c77d21e126e59b8e89be10dcc85c47630c5201301d10ad86973a21c95c6f5a65a79dd7b6f2f1586fe682b"
    "2acf732199729eb2637e44af671a15ed65874f727a21febbe56d9d627aa78c35217fc832c41c38f5fbfd4aaa446d8f7d7356"
    "3174180046d5deeb955bbc56c30df8db8cc495f12d03f785349c405596e85d69d62dd5644ecd2a8c2323cb1e67ec27a793f7"
    "b1ebdb14d1e9f18e8135c5fb00872d8a38c3e42f6bacc0931148495fbe5f827ca9a1a053196b57add911c2b2adef5035f7fc"
    "9154c1992e9f14dcbd4da2e044f70d1062f5dff8c7ba69c68b2d360f31a19d8dfcd6c7e10bb85bad7a5baa5c45f2b49a8de7"
    "960aeca2319f"
)


class RsaKey:
    algorithm = 2
    n = int(_N, 16)
    d = int(_D, 16)
    public = n.to_bytes(256, "big")
    id = sha(public)[:8]

    def power(self, number):
        """number**d mod n, 256 bytes: a signature, if `number` is padded as it should be."""
        return pow(number, self.d, self.n).to_bytes(256, "big")

    def sign(self, digest):
        return self.power(int.from_bytes(padded(digest), "big"))


def padded(digest, size=256):
    """EMSA-PKCS1-v1_5 of a SHA-256 (RFC 8017 section 9.2)."""
    info = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20" + digest
    return b"\x00\x01" + b"\xff" * (size - 3 - len(info)) + b"\x00" + info


def u16(n):
    return n.to_bytes(2, "big")


def u32(n):
    return n.to_bytes(4, "big")


class LmsKey:
    """An HSS key of one LMS tree, H5, with LM-OTS N32 of `width` bits. `leaf`: the next one to sign with."""

    algorithm = 3

    def __init__(self, seed=b"seed", width=4):
        self.width = width
        self.type = {1: 1, 2: 2, 4: 3, 8: 4}[width]
        self.digits = {1: 265, 2: 133, 4: 67, 8: 34}[width]
        self.shift = {1: 7, 2: 6, 4: 4, 8: 0}[width]
        self.seed = sha(seed)
        self.identifier = sha(self.seed)[:16]
        self.leaf = 0
        self.nodes = {}
        top = (1 << width) - 1
        for leaf in range(32):
            prefix = self.identifier + u32(leaf)
            ends = [self.chain(prefix, digit, 0, top) for digit in range(self.digits)]
            root = sha(prefix + b"\x80\x80" + b"".join(ends))
            self.nodes[32 + leaf] = sha(self.identifier + u32(32 + leaf) + b"\x82\x82" + root)
        for node in range(31, 0, -1):
            pair = self.nodes[2 * node] + self.nodes[2 * node + 1]
            self.nodes[node] = sha(self.identifier + u32(node) + b"\x83\x83" + pair)
        self.tree = u32(5) + u32(self.type) + self.identifier + self.nodes[1]
        self.public = u32(1) + self.tree
        self.id = sha(self.public)[:8]

    def chain(self, prefix, digit, first, last):
        value = sha(prefix + u16(digit) + b"\xff" + self.seed)
        for step in range(first, last):
            value = sha(prefix + u16(digit) + bytes([step]) + value)
        return value

    def sign_tree(self, message):
        """LMS signature with the next leaf."""
        leaf = self.leaf
        self.leaf += 1
        prefix = self.identifier + u32(leaf)
        c = sha(b"C" + prefix + self.seed)
        hashed = sha(prefix + b"\x81\x81" + c + message)
        top = (1 << self.width) - 1
        number = int.from_bytes(hashed, "big")
        total = 0
        for shift in range(0, 256, self.width):
            total += top - (number >> shift & top)
        number = number << 16 | total << self.shift
        parts = [u32(leaf), u32(self.type), c]
        for digit in range(self.digits):
            last = number >> (272 - self.width - digit * self.width) & top
            parts.append(self.chain(prefix, digit, 0, last))
        parts.append(u32(5))
        node = 32 + leaf
        while node > 1:
            parts.append(self.nodes[node ^ 1])
            node >>= 1
        return b"".join(parts)

    def sign(self, digest):
        """HSS signature of one level."""
        return u32(0) + self.sign_tree(digest)


class HssKey:
    """Trees above each other; each signs the next one's public key."""

    algorithm = 3

    def __init__(self, *trees):
        self.trees = trees
        self.public = u32(len(trees)) + trees[0].tree
        self.id = sha(self.public)[:8]

    def sign(self, digest):
        parts = [u32(len(self.trees) - 1)]
        for level, below in enumerate(self.trees[1:]):
            parts.append(self.trees[level].sign_tree(below.tree) + below.tree)
        return b"".join(parts) + self.trees[-1].sign_tree(digest)
