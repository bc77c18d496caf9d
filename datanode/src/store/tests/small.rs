//! Small packed chunks read out of memory: never anything that [`super::super::reader`] would not hand out.

use super::*;
use crate::testing::Faults;

fn read_now(bench: &Bench, chunk: &SealedChunk) -> Option<Vec<u8>> {
    let small = bench.store.read_now(chunk.id, chunk.version)?;
    assert_eq!(small.header.chunk, *chunk);
    let blocks = small.blocks.iter();
    Some(blocks.flat_map(|block| block.data.to_vec()).collect())
}

/// A chunk that a read found, so that its pack is open.
fn read_once(bench: &Bench, length: usize) -> (SealedChunk, Vec<u8>) {
    let data = bytes(length);
    let chunk = bench.put(1, &data);
    assert_eq!(bench.read(&chunk).unwrap(), data);
    (chunk, data)
}

fn edit_pack(bench: &Bench, change: impl FnOnce(&mut Vec<u8>)) {
    let names = bench.names("packs");
    let path = bench.root().join("packs").join(&names[0]);
    // In place: the pack stays the file that is open.
    let mut pack = std::fs::read(&path).unwrap();
    change(&mut pack);
    std::fs::write(path, pack).unwrap();
}

#[test]
fn a_small_chunk_of_any_length_is_read_whole_and_a_larger_one_is_left_to_open() {
    for length in [0, 1, 4096, BLOCK_SIZE, BLOCK_SIZE + 1, 2 * BLOCK_SIZE] {
        let bench = Bench::packed();
        let (chunk, data) = read_once(&bench, length);
        assert!(read_now(&bench, &chunk).unwrap() == data, "{length}");
    }
    let bench = Bench::packed();
    let (chunk, _) = read_once(&bench, 2 * BLOCK_SIZE + 8192);
    assert!(read_now(&bench, &chunk).is_none());
    let bench = Bench::new();
    let (chunk, _) = read_once(&bench, 4096);
    assert!(read_now(&bench, &chunk).is_none(), "it has its own file");
}

#[test]
fn i04_a_small_chunk_with_a_flipped_bit_anywhere_is_never_handed_out_of_memory() {
    // The pack's header, the entry's, two blocks and the footer.
    let (entry, data) = (512, 1024);
    for at in [
        entry + 3,
        entry + 30,
        data - 2,
        data,
        data + BLOCK_SIZE - 1,
        data + BLOCK_SIZE,
        data + 69_999,
        data + 70_000,
        data + 70_000 + 11,
    ] {
        let bench = Bench::packed();
        let (chunk, _) = read_once(&bench, 70_000);
        edit_pack(&bench, |pack| pack[at] ^= 0x10);
        assert!(read_now(&bench, &chunk).is_none(), "{at}");
        let known = bench.store.index().get((chunk.id, chunk.version));
        assert!(known.is_some(), "looking changes nothing");
        let error = bench.read(&chunk).unwrap_err();
        assert!(
            matches!(error, StoreError::Corrupt { .. }),
            "{at}: {error:?}"
        );
        assert!(read_now(&bench, &chunk).is_none(), "set aside");
    }
}

#[test]
fn a_small_chunk_that_is_not_in_memory_is_left_to_open() {
    let bench = Bench::packed();
    let (chunk, data) = read_once(&bench, 4096);
    let cold = Faults {
        cold: true,
        ..Faults::default()
    };
    bench.disk.set(cold);
    assert!(read_now(&bench, &chunk).is_none());
    assert_eq!(bench.read(&chunk).unwrap(), data);
    bench.disk.set(Faults::default());
    assert_eq!(read_now(&bench, &chunk).unwrap(), data);
}

#[test]
fn i04_a_pack_cut_short_under_a_reader_hands_nothing_out() {
    let bench = Bench::packed();
    let (chunk, _) = read_once(&bench, 4096);
    edit_pack(&bench, |pack| pack.truncate(2000));
    assert!(read_now(&bench, &chunk).is_none());
}

#[test]
fn a_small_chunk_is_whole_while_compaction_moves_it_and_gone_once_it_is_removed() {
    let bench = Bench::with(PackLimits {
        chunk: 64 * 1024,
        pack: 16 * 1024,
    });
    let data = bytes(4000);
    let chunks: Vec<_> = (0..4).map(|id| bench.put(id, &data)).collect();
    let moved = chunks[2];
    let remove = |chunk: &SealedChunk| {
        let removed = bench.store.remove(chunk.id, chunk.version, ChunkKind::Data);
        assert!(removed.unwrap());
    };
    chunks[..2].iter().for_each(remove);
    bench.read(&moved).unwrap();
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| while bench.store.compact().unwrap().is_some() {});
        let mut last = false;
        while !last {
            last = compacting.is_finished();
            if let Some(found) = read_now(&bench, &moved) {
                assert!(found == data);
            }
        }
    });
    assert_eq!(bench.read(&moved).unwrap(), data);
    assert_eq!(read_now(&bench, &moved).unwrap(), data);
    remove(&moved);
    assert!(read_now(&bench, &moved).is_none());
}
