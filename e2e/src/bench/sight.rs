//! What looking at a store costs: a scrape of each role as the cluster grows, and small GETs while requests are
//! traced or metrics are read, beside the same store that nobody looks at.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use super::body::Source;
use super::drive::Load;
use super::fleet::{Fleet, Layout, Tracing};
use super::lookups::{fill_with, lookups};
use super::played::Herd;
use super::procfs;
use super::report::{Report, Unit};
use super::rounds::{Run, median};
use super::settings::{KIB, Scale, Settings};
use super::side::{Kind, Task, measure};

/// Datanodes that have chunks.
const REPORTERS: usize = 3;
/// Scrapes of one process, one after another; the first is dropped.
const SCRAPES: usize = 40;
/// Between two scrapes of a process that is looked at while it works.
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of the files that are read.
const BYTES: u64 = 4 * KIB;
/// Clients at once.
const STREAMS: usize = 16;

pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let (_, binary) = &settings.binaries[0];
    for (datanodes, chunks) in sizes(settings.scale) {
        trackers_scrape(settings, report, binary, datanodes, chunks).await?;
    }
    roles_scrapes(settings, report, binary).await?;
    small_reads(settings, report, binary).await
}

/// Datanodes and chunks of the clusters whose tracker is scraped.
fn sizes(scale: Scale) -> Vec<(usize, usize)> {
    match scale {
        Scale::Smoke => vec![(3, 30), (5, 60)],
        Scale::Short => vec![(3, 3_000), (50, 3_000), (500, 3_000), (500, 60_000)],
        Scale::Full => vec![(3, 3_000), (50, 3_000), (500, 3_000), (500, 600_000)],
    }
}

async fn trackers_scrape(
    settings: &Settings,
    report: &mut Report,
    binary: &Path,
    datanodes: usize,
    chunks: usize,
) -> io::Result<()> {
    let fleet = Fleet::start_tracker(binary, &settings.dir).await?;
    let mut herd = Herd::start(&fleet.address, settings.seed, REPORTERS).await?;
    herd.wait_for_writes().await?;
    herd.write(chunks).await?;
    herd.report().await?;
    herd.grow(datanodes).await?;
    // What is told of each datanode is published by a loop of the tracker's.
    tokio::time::sleep(2 * INTERVAL).await;
    let what = format!("tracker, {datanodes} played datanodes, {chunks} chunks");
    scrape(report, &fleet, "tracker", &what).await
}

/// A datanode's and a gateway's, which know nothing of how many others there are.
async fn roles_scrapes(settings: &Settings, report: &mut Report, binary: &Path) -> io::Result<()> {
    let mut fleet = Fleet::start(binary, &settings.dir).await?;
    let gateway = fleet.start_gateway(binary).await?;
    let source = Source::new(settings.seed);
    fill_with(settings, &gateway, &fleet.group, &source, BYTES).await?;
    for role in ["tracker", "datanode-1", "gateway"] {
        let what = format!("{role} of three datanodes, {} files", settings.files);
        scrape(report, &fleet, role, &what).await?;
    }
    Ok(())
}

/// Scrapes one process and says what that took.
async fn scrape(report: &mut Report, fleet: &Fleet, process: &str, what: &str) -> io::Result<()> {
    let admin = fleet.admin_of(process)?;
    let mut pids = fleet.group.pids();
    let pid = pids.find_map(|(name, pid)| (name == process).then_some(pid));
    let pid = pid.ok_or_else(|| io::Error::other(format!("there is no process `{process}`")))?;
    let mut seconds = Vec::new();
    let (mut bytes, mut series) = (0, 0);
    let mut before = 0.0;
    for number in 0..=SCRAPES {
        let started = Instant::now();
        let reply = admin.get("/metrics").await?;
        if number == 0 {
            before = procfs::cpu_seconds(pid);
            continue;
        }
        seconds.push(started.elapsed().as_secs_f64());
        let text = reply.text();
        bytes = text.len();
        series = text.lines().filter(|line| !line.starts_with('#')).count();
    }
    let cpu = (procfs::cpu_seconds(pid) - before) / SCRAPES as f64;
    let most = seconds.iter().copied().fold(0.0, f64::max);
    let text = format!(
        "scrape of {what}: {bytes} bytes, {series} series, {:.2} ms (most {:.2}), {:.2} ms of its CPU",
        median(&seconds) * 1e3,
        most * 1e3,
        cpu * 1e3,
    );
    let figures = json!({
        "of": what, "bytes": bytes, "series": series, "seconds_median": median(&seconds),
        "seconds_max": most, "cpu_s": cpu, "scrapes": SCRAPES,
    });
    report.note("sight", &text, &figures)
}

/// How a store is looked at while it is read.
struct Look {
    name: &'static str,
    tracing: Option<&'static str>,
    is_scraped: bool,
}

const LOOKS: [Look; 4] = [
    Look {
        name: "nobody looks",
        tracing: None,
        is_scraped: false,
    },
    Look {
        name: "all requests traced",
        tracing: Some("1"),
        is_scraped: false,
    },
    Look {
        name: "1 % of requests traced",
        tracing: Some("0.01"),
        is_scraped: false,
    },
    Look {
        name: "every process scraped each second",
        tracing: None,
        is_scraped: true,
    },
];

/// Each look at a store of its own, in the same rounds.
async fn small_reads(settings: &Settings, report: &mut Report, binary: &Path) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let collector = listener.local_addr()?.port();
    tokio::spawn(collect(listener));
    let source = Source::new(settings.seed);
    let mut fleets = Vec::new();
    for look in &LOOKS {
        let layout = Layout {
            tracing: look.tracing.map(|ratio| Tracing { collector, ratio }),
            ..Layout::default()
        };
        let fleet = Fleet::start_with(binary, &settings.dir, &layout).await?;
        fill_with(settings, &fleet.door, &fleet.group, &source, BYTES).await?;
        fleets.push(fleet);
    }
    let load = Load {
        streams: STREAMS,
        operations: match settings.scale {
            Scale::Smoke => 40,
            // Longer than between two scrapes.
            Scale::Short | Scale::Full => 20_000,
        },
        limit: settings.limit,
    };
    let sides = LOOKS.iter().zip(&fleets).enumerate();
    let sides = sides.map(|(index, (look, fleet))| {
        let kind = if index == 0 {
            Kind::Baseline
        } else {
            Kind::Ours
        };
        let reads = lookups(&fleet.door, &fleet.group, load, settings, BYTES);
        let run = if look.is_scraped {
            beside_scrapes(reads, fleet)
        } else {
            reads
        };
        fleet.side(kind, look.name, "-", run)
    });
    let task = Task {
        id: "sight",
        what: format!("GET 4 KiB among {} files, c={STREAMS}", settings.files),
        unit: Unit::Operations,
    };
    measure(settings, report, &task, sides.collect()).await
}

/// The same work while each process is scraped all the time.
fn beside_scrapes<'a>(mut work: Run<'a>, fleet: &'a Fleet) -> Run<'a> {
    Box::new(move |round| {
        let sample = work(round);
        Box::pin(async move {
            tokio::select! {
                sample = sample => sample,
                failed = scrape_all(fleet) => Err(failed),
            }
        })
    })
}

/// Ends only with an error.
async fn scrape_all(fleet: &Fleet) -> io::Error {
    loop {
        for admin in fleet.admins() {
            if let Err(error) = admin.get("/metrics").await {
                return error;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// A collector that takes spans and forgets them.
async fn collect(listener: TcpListener) {
    // Ends with the runtime.
    while let Ok((stream, _)) = listener.accept().await {
        let serving =
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(take));
        tokio::spawn(serving);
    }
}

async fn take(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // A batch that breaks is sent by nobody who waits for the answer.
    let _read = request.into_body().collect().await;
    Ok(Response::new(Full::from("{}")))
}
