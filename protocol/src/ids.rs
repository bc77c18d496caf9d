//! Ids as newtypes: a bare string or integer stops at the parser.
//!
//! 128-bit ids are random (the caller brings the randomness), written as 32 hex digits; a
//! [`VersionId`] has a dash in the middle so that, as an `ETag`, it is never mistaken for an MD5.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Text that is not the id it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: expected {expected}")]
pub struct ParseIdError {
    /// Name of the id's type.
    pub kind: &'static str,
    /// What was read, cut to 80 characters.
    pub text: String,
    /// The shape that would have been accepted.
    pub expected: &'static str,
}

impl ParseIdError {
    fn new(kind: &'static str, text: &str, expected: &'static str) -> Self {
        Self {
            kind,
            text: text.chars().take(80).collect(),
            expected,
        }
    }
}

macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// Makes an id of 128 random bits that the caller drew.
            pub const fn from_u128(bits: u128) -> Self {
                Self(bits)
            }

            /// The bits, most significant first when written to disk.
            pub const fn as_u128(self) -> u128 {
                self.0
            }

            /// Big-endian bytes: sorts as the id does.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// Reads what [`Self::to_bytes`] wrote.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.to_bytes().serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                    text.parse().map_err(de::Error::custom)
                } else {
                    Ok(Self::from_bytes(<[u8; 16]>::deserialize(deserializer)?))
                }
            }
        }
    };
}

macro_rules! hex32 {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = [0; 32];
                f.write_str(hex(self.0, &mut text))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_hex(text, 32)
                    .map(Self)
                    .ok_or_else(|| ParseIdError::new(stringify!($name), text, "32 hex digits"))
            }
        }
    )*};
}

/// 32 lower-case hex digits. The formatting machinery takes several times as long, and a page of a listing has a thousand ids.
fn hex(bits: u128, text: &mut [u8; 32]) -> &str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bits.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    // Digits are ASCII.
    std::str::from_utf8(text).unwrap_or_default()
}

fn parse_hex(text: &str, digits: usize) -> Option<u128> {
    let valid = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

id128! {
    /// One store: every volume and every message names the cluster it belongs to.
    ClusterId
}
id128! {
    /// The uuid written on a datanode's volume: its identity, whatever its address.
    DatanodeId
}
id128! {
    /// One chunk of one file. Never used twice, never reused after deletion.
    ChunkId
}
id128! {
    /// One stored content under one path; a replacement is a new file.
    FileId
}
id128! {
    /// One upload as its client's gateway names it; the version it commits carries the same bits.
    UploadId
}
id128! {
    /// A committed version of a path, served as the strong, opaque `ETag`.
    VersionId
}
id128! {
    /// A gateway's right to keep chunks that no file names yet.
    LeaseId
}
id128! {
    /// One deleted or replaced version that waits in the trash.
    TrashId
}
hex32!(
    ClusterId, DatanodeId, ChunkId, FileId, UploadId, LeaseId, TrashId
);

impl DatanodeId {
    /// The first eight hex digits: what people see in tables.
    pub fn short(self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl From<UploadId> for VersionId {
    /// The version that an upload commits: a retried commit finds its own result.
    fn from(upload: UploadId) -> Self {
        Self(upload.0)
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        let (high, low) = hex(self.0, &mut text).split_at(16);
        write!(f, "{high}-{low}")
    }
}

impl FromStr for VersionId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bits = text
            .split_once('-')
            .and_then(|(high, low)| Some((parse_hex(high, 16)? << 64) | parse_hex(low, 16)?));
        bits.map(Self)
            .ok_or_else(|| ParseIdError::new("VersionId", text, "two groups of 16 hex digits"))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse()
                    .map(Self)
                    .map_err(|_| ParseIdError::new(stringify!($name), text, "a decimal number"))
            }
        }
    };
}

number! {
    /// Exposes stale replicas: raised when a write loses a hop and goes on (GFS section 4.5).
    ChunkVersion(u32)
}
number! {
    /// Fencing number of the acting tracker.
    Epoch(u64)
}
number! {
    /// Random companion of the epoch: tells two trackers apart that took the same number.
    Incarnation(u64)
}
number! {
    /// One repair task, unique within a tracker's life.
    TaskId(u64)
}
number! {
    /// Random number of one run of a process: a restarted datanode has a new one.
    InstanceId(u64)
}

impl ChunkVersion {
    /// The version of a chunk whose first write lost no hop.
    pub const FIRST: Self = Self(1);

    /// The version after a lost hop.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a datanode must have accepted before it obeys: the acting tracker's epoch and incarnation.
///
/// Ordering compares the epoch alone; equal epochs with different incarnations are rivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// Raised at every tracker start.
    pub epoch: Epoch,
    /// Drawn at every tracker start.
    pub incarnation: Incarnation,
}

impl Fence {
    /// Whether a datanode that holds `self` may take orders under `offered`.
    pub fn admits(self, offered: Self) -> bool {
        offered.epoch > self.epoch || offered == self
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.epoch, self.incarnation.0)
    }
}

impl FromStr for Fence {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('-').and_then(|(epoch, incarnation)| {
            Some(Self {
                epoch: epoch.parse().ok()?,
                incarnation: Incarnation(u64::from_str_radix(incarnation, 16).ok()?),
            })
        });
        parsed.ok_or_else(|| ParseIdError::new("Fence", text, "EPOCH-INCARNATION"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_text_and_json_and_refuse_other_shapes() {
        let id = ChunkId::from_u128(0xabc);
        assert_eq!(id.to_string().parse::<ChunkId>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, "\"00000000000000000000000000000abc\"");
        assert_eq!(serde_json::from_str::<ChunkId>(&json).unwrap(), id);
        for bad in [
            "",
            "abc",
            "+0000000000000000000000000000abc",
            "g0000000000000000000000000000abc",
        ] {
            assert!(bad.parse::<ChunkId>().is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_id_is_written_as_32_hex_digits(bits in proptest::prelude::any::<u128>()) {
            let text = format!("{bits:032x}");
            proptest::prop_assert_eq!(ChunkId::from_u128(bits).to_string(), text.as_str());
            let version = format!("{}-{}", &text[..16], &text[16..]);
            proptest::prop_assert_eq!(VersionId::from_u128(bits).to_string(), version);
        }
    }

    #[test]
    fn an_etag_never_looks_like_an_md5() {
        let version = VersionId::from_u128(u128::MAX);
        assert_eq!(version.to_string().len(), 33);
        assert_eq!(version.to_string().parse::<VersionId>().unwrap(), version);
        assert!(
            "ffffffffffffffffffffffffffffffff"
                .parse::<VersionId>()
                .is_err()
        );
    }

    #[test]
    fn i20_a_fence_admits_its_own_pair_and_higher_epochs_only() {
        let fence = |epoch, incarnation| Fence {
            epoch: Epoch(epoch),
            incarnation: Incarnation(incarnation),
        };
        assert!(fence(4, 7).admits(fence(4, 7)));
        assert!(fence(4, 7).admits(fence(5, 1)));
        assert!(!fence(4, 7).admits(fence(4, 8)));
        assert!(!fence(4, 7).admits(fence(3, 7)));
    }
}
