//! `dfs tracker rebuild`, `dfs meta dump`, `dfs meta load`: the catalog while no tracker runs.

use std::io::{BufReader, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::PoisonError;

use dfs_runtime::shutdown::shutdown_pair;
use dfs_tracker::rebuild::{Rebuilt, rebuild};
use dfs_tracker::store::checkpoint;
use dfs_tracker::store::rebuild::RebuildOptions;
use dfs_tracker::{TrackerConfig, TrackerParts};
use prometheus::Registry;

use super::World;
use super::place::{blocking, failed, prepare};
use crate::args::RebuildArgs;
use crate::exit::Failure;
use crate::human;
use crate::output::{Output, stdout_failure};
use crate::tokens;

/// Builds the catalog anew from the datanodes, into an empty directory.
pub async fn run_rebuild(args: &RebuildArgs, world: World, out: &Output) -> Result<(), Failure> {
    prepare(world.disk.clone(), args.dir.clone()).await?;
    let mut config = TrackerConfig::new(args.dir.clone());
    config.replication_factor = args.replication;
    // It ends by itself: the tokens need no second look.
    let (_never, shutdown) = shutdown_pair();
    config.tokens = tokens::of_role(&args.token, &world, &shutdown).await?;
    let addresses: Vec<_> = args.datanodes.iter().map(ToString::to_string).collect();
    let options = RebuildOptions {
        allow_gap: args.allow_gap,
    };
    let parts = TrackerParts {
        clock: world.clock,
        rng: world.rng,
        connector: world.connector,
        registry: Registry::new(),
    };
    let rebuilt = rebuild(world.disk, &config, &addresses, options, parts)
        .await
        .map_err(|error| {
            failed("rebuild the catalog", &error).next(
                "nothing on the datanodes was changed; set the cause right, empty the directory \
                 and try again",
            )
        })?;
    out.line(&describe(&rebuilt, args))
}

fn describe(rebuilt: &Rebuilt, args: &RebuildArgs) -> String {
    let Rebuilt {
        datanodes,
        report,
        files,
        found,
    } = rebuilt;
    let base = report.checkpoint.map_or_else(
        || "from its beginning".to_owned(),
        |sequence| format!("on the checkpoint at {}", human::thousands(sequence)),
    );
    let mut lines = vec![
        format!(
            "rebuilt cluster {} from {}",
            report.cluster,
            human::count(*datanodes as u64, "datanode")
        ),
        format!(
            "  {} replayed {base}, up to {}",
            human::count(report.replayed, "journal record"),
            human::thousands(report.sequence)
        ),
        format!(
            "  {} are back, {} found without a name under lost+found/",
            human::count(*files, "file"),
            human::thousands(*found)
        ),
    ];
    for (count, what) in [
        (report.superseded, "record of deposed trackers left out"),
        (report.disputed.len() as u64, "disputed record"),
        (report.gaps.len() as u64, "gap in the journal"),
    ] {
        if count > 0 {
            lines.push(format!("  ! {} {what}", human::thousands(count)));
        }
    }
    lines.push(format!(
        "start it: dfs tracker --dir {}; then look: dfs fsck",
        args.dir.display()
    ));
    lines.join("\n")
}

/// Writes the catalog to standard output.
pub async fn run_dump(dir: PathBuf, world: World, out: &Output) -> Result<(), Failure> {
    let what = format!("dump the catalog in {}", dir.display());
    let config = TrackerConfig::new(dir);
    let opened = dfs_tracker::open_engine(world.disk, &config).await;
    let engine = opened.map_err(|error| failed(&what, &error))?;
    let (now, stdout) = (world.clock.wall(), out.stdout());
    let sequence = blocking(move || {
        let mut stdout = stdout.lock().unwrap_or_else(PoisonError::into_inner);
        let mut output = BufWriter::new(&mut *stdout);
        let dumped = checkpoint::dump(engine, now, &mut output);
        let sequence = dumped.map_err(|error| failed(&what, &error))?;
        output.flush().map_err(|error| stdout_failure(&error))?;
        Ok(sequence)
    })
    .await?;
    let sequence = human::thousands(sequence);
    out.note(&format!("dumped the catalog up to change {sequence}"));
    Ok(())
}

/// Reads a catalog from standard input into an empty directory.
pub async fn run_load(dir: PathBuf, world: World, out: &Output) -> Result<(), Failure> {
    let what = format!("load the catalog into {}", dir.display());
    prepare(world.disk.clone(), dir.clone()).await?;
    let config = TrackerConfig::new(dir);
    let opened = dfs_tracker::open_engine(world.disk, &config).await;
    let engine = opened.map_err(|error| failed(&what, &error))?;
    let loaded = blocking(move || {
        let mut input = BufReader::new(std::io::stdin());
        checkpoint::load(engine.as_ref(), &mut input).map_err(|error| {
            failed(&what, &error).next("empty the directory and load a dump that is whole")
        })
    })
    .await?;
    let sequence = human::thousands(loaded.trailer.sequence);
    out.note(&format!("loaded the catalog up to change {sequence}"));
    Ok(())
}
