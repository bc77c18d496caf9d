//! How much packs are ahead of a file for each chunk, on the disk under `target/`. Not a test: run it
//! alone with `--ignored --nocapture`; `docs/decisions/packed-chunks.md` has its figures.

use std::time::Instant;

use dfs_runtime::disk::RealDisk;

use super::*;

const CHUNKS: u128 = 2000;

/// Chunks a second that so many threads seal together.
fn rate(limits: PackLimits, threads: u128, data: &[u8]) -> f64 {
    let beside = std::env::current_exe().unwrap();
    let dir = tempfile::tempdir_in(beside.parent().unwrap()).unwrap();
    let opened = open(RealDisk::shared(), dir.path(), limits);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let opened = &opened;
            scope.spawn(move || {
                for number in (thread..CHUNKS).step_by(usize::try_from(threads).unwrap()) {
                    // Ids are random: the first byte names a directory.
                    opened.put(number << 120 | number, data);
                }
            });
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    assert_eq!(
        opened.store.index().totals().0,
        u64::try_from(CHUNKS).unwrap()
    );
    f64::from(u32::try_from(CHUNKS).unwrap()) / seconds
}

#[test]
#[ignore = "measures the disk"]
fn chunks_of_4_kib_sealed_by_many_threads_in_both_layouts() {
    let data = bytes(4096);
    for threads in [1, 16, 64] {
        let mut ratios = Vec::new();
        for round in 0..6 {
            let files = rate(PackLimits::NONE, threads, &data);
            let packs = rate(PackLimits::default(), threads, &data);
            // The first round only warms up.
            if round > 0 {
                ratios.push(packs / files);
            }
        }
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        println!(
            "{threads} threads: {:.1} ({least:.1}..{most:.1})",
            ratios[2]
        );
    }
}
