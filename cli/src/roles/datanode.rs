//! `dfs datanode`.

use dfs_datanode::store::{PackLimits, SpaceLimits};
use dfs_datanode::{DatanodeConfig, DatanodeParts};
use dfs_runtime::shutdown::Shutdown;
use prometheus::Registry;

use super::place::{bind, failed, prepare};
use super::{DRAIN, World};
use crate::args::{DatanodeArgs, Listening, Role};
use crate::exit::Failure;
use crate::tokens;
use crate::traces::Traces;

/// Runs a datanode until the shutdown.
pub async fn run_datanode(
    args: &DatanodeArgs,
    world: World,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let place = args.listen.resolve(Role::Datanode);
    let mut config = config(args, &place)?;
    config.tokens = tokens::of_role(&args.token, &world, &shutdown).await?;
    let listener = bind(place.api, "--port").await?;
    let admin = bind(place.admin, "--admin-port").await?;
    prepare(world.disk.clone(), place.dir.clone()).await?;
    let registry = Registry::new();
    let failure = |error: &dyn std::error::Error| failed("run the datanode", error);
    dfs_runtime::process::register(&registry, "datanode").map_err(|error| failure(&error))?;
    let instance = args.pod.as_deref().unwrap_or(&config.advertise);
    let traces = Traces::of_role(&args.traces, Role::Datanode, instance, &world, &registry)?;
    config.tracer = traces.tracer.clone();
    let World {
        disk,
        clock,
        rng,
        connector,
    } = world;
    let parts = DatanodeParts {
        listener,
        admin: Some(admin),
        disk,
        clock,
        rng,
        connector,
        registry,
    };
    tracing::info!(api = %place.api, admin = %place.admin, tracker = %args.tracker, "the datanode starts");
    let ended = dfs_datanode::run(config, parts, shutdown).await;
    traces.finish().await;
    ended.map_err(|error| failure(&error))
}

fn config(args: &DatanodeArgs, place: &Listening) -> Result<DatanodeConfig, Failure> {
    let advertise = match &args.advertise {
        Some(address) => address.to_string(),
        None if place.api.ip().is_unspecified() => {
            let why = format!("{} is no address that peers could reach", place.api.ip());
            return Err(Failure::usage("run the datanode", why)
                .next("say where they reach it with --advertise HOST:PORT"));
        }
        None => place.api.to_string(),
    };
    let mut config = DatanodeConfig::new(place.dir.clone(), args.tracker.as_str(), advertise);
    config.zone.clone_from(&args.zone);
    config.host.clone_from(&args.host);
    config.pod.clone_from(&args.pod);
    if let Some(bytes) = args.reserve {
        config.space = SpaceLimits::exactly(bytes);
    }
    if let Some(rate) = args.scrub_rate {
        config.scrub_rate = rate;
    }
    if let Some(bytes) = args.pack_limit {
        if bytes > PackLimits::MAX_CHUNK {
            let why = format!(
                "--pack-limit {bytes} is more than {}: chunks to be packed are kept in memory while \
                 they stream",
                PackLimits::MAX_CHUNK
            );
            return Err(Failure::usage("run the datanode", why)
                .next("give at most --pack-limit 16MiB, or 0 for a file for each chunk"));
        }
        config.packs.chunk = bytes;
    }
    config.writes = args.write_mode.wanted();
    config.limits.drain = DRAIN;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use dfs_protocol::datanode::WriteMode;

    use super::*;
    use crate::args::{Command, parse};

    fn configured(line: &str) -> Result<DatanodeConfig, Failure> {
        let words = line.split(' ').map(Into::into).collect();
        let Command::Datanode(args) = parse(words).unwrap().command else {
            unreachable!()
        };
        config(&args, &args.listen.resolve(Role::Datanode))
    }

    #[test]
    fn what_peers_cannot_reach_is_not_advertised() {
        let plain = configured("dfs datanode --port 6004").unwrap();
        assert_eq!(plain.advertise, "127.0.0.1:6004");
        let failure = configured("dfs datanode --listen 0.0.0.0").unwrap_err();
        assert!(failure.render().contains("--advertise"));
        let told = configured("dfs datanode --listen 0.0.0.0 --advertise 10.0.0.7:6001").unwrap();
        assert_eq!(told.advertise, "10.0.0.7:6001");
    }

    #[test]
    fn a_reserve_in_bytes_takes_the_place_of_the_share() {
        let told = configured("dfs datanode --reserve 1MiB").unwrap();
        assert_eq!(told.space, SpaceLimits::exactly(1024 * 1024));
        let plain = configured("dfs datanode").unwrap();
        assert_eq!(plain.space, SpaceLimits::default());
    }

    #[test]
    fn large_chunks_are_written_as_the_volume_does_it_best_unless_it_is_said() {
        let writes = |text| configured(text).unwrap().writes;
        assert_eq!(writes("dfs datanode"), None);
        assert_eq!(writes("dfs datanode --write-mode auto"), None);
        let direct = writes("dfs datanode --write-mode direct");
        assert_eq!(direct, Some(WriteMode::Direct));
    }

    #[test]
    fn a_pack_limit_is_taken_up_to_what_memory_allows() {
        let told = configured("dfs datanode --pack-limit 64KiB").unwrap();
        assert_eq!(told.packs.chunk, 64 * 1024);
        assert_eq!(
            configured("dfs datanode --pack-limit 0").unwrap().packs,
            PackLimits::NONE
        );
        let plain = configured("dfs datanode").unwrap();
        assert_eq!(plain.packs, PackLimits::default());
        let failure = configured("dfs datanode --pack-limit 17MiB").unwrap_err();
        assert!(failure.render().contains("16MiB"));
    }
}
