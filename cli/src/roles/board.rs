//! What `dfs dev` says when it is ready.

use std::net::SocketAddr;
use std::path::Path;

use crate::args::DEFAULT_TRACKER_PORT;

/// What there is to say.
pub(super) struct Board<'a> {
    pub(super) address: SocketAddr,
    pub(super) datanodes: usize,
    /// More than was asked for, because they hold data.
    pub(super) extra: usize,
    pub(super) replication: u32,
    pub(super) dir: &'a Path,
    /// Files that were there already.
    pub(super) files: u64,
    /// What is not as it should be.
    pub(super) attention: Option<String>,
}

impl Board<'_> {
    pub(super) fn render(&self) -> String {
        let (address, port) = (self.address, self.address.port());
        let mut lines = vec![
            format!(
                "dfs dev is ready on http://{address}: a tracker and {} datanodes, {} of each chunk",
                self.datanodes,
                crate::human::count(u64::from(self.replication), "replica"),
            ),
            String::new(),
        ];
        if let Some(attention) = &self.attention {
            lines.push(format!("  ! {attention}"));
            lines.push(String::new());
        }
        let mut section = |name: &str, texts: &[String]| {
            for (at, text) in texts.iter().enumerate() {
                let name = if at == 0 { name } else { "" };
                lines.push(format!("  {name:<8} {text}"));
            }
        };
        section(
            "curl",
            &[
                format!("curl -X POST -F \"file=@example.txt\" http://localhost:{port}/upload"),
                format!("curl -X GET http://localhost:{port}/download/example.txt -o example.txt"),
            ],
        );
        let mut verbs = vec![
            "dfs put example.txt docs/".to_owned(),
            "dfs ls docs/".to_owned(),
            "dfs status".to_owned(),
        ];
        if port != DEFAULT_TRACKER_PORT {
            verbs.insert(0, format!("export DFS_TRACKER=http://{address}"));
        }
        section("dfs", &verbs);
        let files = crate::human::count(self.files, "file");
        let mut data = vec![format!(
            "{} ({files} in it, kept between runs)",
            self.dir.display()
        )];
        if self.extra > 0 {
            data.push(format!(
                "{} more than asked for, because they hold data",
                crate::human::count(self.extra as u64, "datanode")
            ));
        }
        section("data", &data);
        section(
            "health",
            &[format!(
                "http://{address}/readyz?verbose, http://{address}/metrics"
            )],
        );
        section("stop", &["Ctrl-C".to_owned()]);
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_board_has_commands_to_paste() {
        let board = |port| Board {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            datanodes: 3,
            extra: 0,
            replication: 3,
            dir: Path::new("./dfs-data/dev-6000"),
            files: 0,
            attention: None,
        };
        let text = board(6000).render();
        for line in [
            "curl -X POST -F \"file=@example.txt\" http://localhost:6000/upload",
            "curl -X GET http://localhost:6000/download/example.txt -o example.txt",
            "dfs put example.txt docs/",
            "Ctrl-C",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("DFS_TRACKER"), "{text}");
        assert!(
            board(7000)
                .render()
                .contains("export DFS_TRACKER=http://127.0.0.1:7000")
        );
    }
}
