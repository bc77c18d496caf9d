//! Names on the volume. Every name is made here from ids; no client's name ever reaches the disk.

use std::path::{Path, PathBuf};

use dfs_protocol::{ChunkId, ChunkVersion};

/// Identity and fence of the volume.
pub const VOLUME_FILE: &str = "volume.json";
/// Held for the life of the process.
pub const LOCK_FILE: &str = "lock";
/// When each replica was last verified.
pub const VERIFIED_FILE: &str = "verified.bin";
/// Sealed records, 256 directories.
pub const CHUNKS_DIR: &str = "chunks";
/// Records being written; emptied at start.
pub const STAGING_DIR: &str = "staging";
/// Records set aside as damaged.
pub const QUARANTINE_DIR: &str = "quarantine";
/// Records of an earlier identity.
pub const RETIRED_DIR: &str = "retired";
/// Small sealed chunks, many to a file. Made with the first pack.
pub const PACKS_DIR: &str = "packs";
/// The tracker's journal.
pub const JOURNAL_DIR: &str = "journal";

/// Directories of a volume from its beginning.
pub const DIRECTORIES: [&str; 5] = [
    CHUNKS_DIR,
    STAGING_DIR,
    QUARANTINE_DIR,
    RETIRED_DIR,
    JOURNAL_DIR,
];

const SUFFIX: &str = ".chunk";
const PACK_SUFFIX: &str = ".pack";

/// File name of a sealed record: `<32 hex>.v<version>.chunk`.
pub fn chunk_name(id: ChunkId, version: ChunkVersion) -> String {
    format!("{id}.v{version}{SUFFIX}")
}

/// Reads what [`chunk_name`] wrote, and only that spelling.
pub fn parse_chunk_name(name: &str) -> Option<(ChunkId, ChunkVersion)> {
    let (id, version) = name.strip_suffix(SUFFIX)?.split_once(".v")?;
    let parsed = (id.parse().ok()?, version.parse().ok()?);
    (chunk_name(parsed.0, parsed.1) == name).then_some(parsed)
}

/// Directory of a chunk's record under [`CHUNKS_DIR`]: the id's first byte in hex. Ids are random,
/// so the directories fill evenly.
pub fn fan_out(id: ChunkId) -> String {
    format!("{:02x}", id.to_bytes()[0])
}

/// Path of a sealed record.
pub fn chunk_path(root: &Path, id: ChunkId, version: ChunkVersion) -> PathBuf {
    root.join(CHUNKS_DIR)
        .join(fan_out(id))
        .join(chunk_name(id, version))
}

/// File name of a pack: `<16 hex>.pack`.
pub fn pack_name(number: u64) -> String {
    format!("{number:016x}{PACK_SUFFIX}")
}

/// Reads what [`pack_name`] wrote, and only that spelling.
pub fn parse_pack_name(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(PACK_SUFFIX)?, 16).ok()?;
    (pack_name(number) == name).then_some(number)
}

/// Path of a pack.
pub fn pack_path(root: &Path, number: u64) -> PathBuf {
    root.join(PACKS_DIR).join(pack_name(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_name_is_read_in_its_own_spelling_only() {
        let (id, version) = (ChunkId::from_u128(0xab << 120 | 5), ChunkVersion(12));
        let name = chunk_name(id, version);
        assert_eq!(parse_chunk_name(&name), Some((id, version)));
        assert_eq!(fan_out(id), "ab");
        for other in [
            name.to_uppercase(),
            name.replace(".v12", ".v012"),
            name.replace(".chunk", ""),
            format!("{name}.tmp"),
            "notes.txt".into(),
            String::new(),
        ] {
            assert_eq!(parse_chunk_name(&other), None, "{other}");
        }
    }

    #[test]
    fn a_pack_name_is_read_in_its_own_spelling_only() {
        assert_eq!(parse_pack_name(&pack_name(0x1f)), Some(0x1f));
        for other in ["1f.pack", "000000000000001F.pack", "000000000000001f", ""] {
            assert_eq!(parse_pack_name(other), None, "{other}");
        }
    }
}
