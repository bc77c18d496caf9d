//! Numbers, times and tables as people read them.

use dfs_protocol::FilePath;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Bytes in powers of 1024: `0 B`, `1.5 KiB`, `64.0 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be written as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Seconds: `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
pub fn seconds(count: u64) -> String {
    let (days, hours, minutes) = (count / 86_400, count / 3_600 % 24, count / 60 % 60);
    if days > 0 {
        format!("{days} d {hours} h")
    } else if hours > 0 {
        format!("{hours} h {minutes} min")
    } else if minutes > 0 {
        format!("{minutes} min {} s", count % 60)
    } else {
        format!("{count} s")
    }
}

/// A count with its noun: `1 file`, `1,234 files`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

/// `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A moment to the minute, in the time zone of whoever reads.
pub fn moment(time: Timestamp, zone: TimeZone) -> String {
    time.to_zoned(zone).strftime("%Y-%m-%d %H:%M").to_string()
}

/// The share of `part` in `whole`, in percent; 0 of nothing.
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

/// A bar of `width` cells: `[#####-----]`.
pub fn bar(part: u64, whole: u64, width: u32) -> String {
    let filled = if whole == 0 {
        0
    } else {
        let cells = u128::from(part.min(whole)) * u128::from(width);
        usize::try_from(cells.div_ceil(u128::from(whole))).unwrap_or(0)
    };
    let width = width as usize;
    format!("[{}{}]", "#".repeat(filled), "-".repeat(width - filled))
}

/// Rows under a head, columns as wide as they must be, two spaces between.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .chain([head[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(cell);
            text.push_str(&" ".repeat(width + 2 - cell.chars().count().min(*width)));
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(
        rows.iter()
            .map(|row| line(&mut row.iter().map(String::as_str))),
    );
    lines.join("\n")
}

/// A path as an argument that a shell can paste.
pub fn quoted(path: &FilePath) -> String {
    let text = path.as_str();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if text.chars().all(plain) && !text.starts_with('-') {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_naturally() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes((1 << 30) - 1), "1.0 GiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(seconds(59), "59 s");
        assert_eq!(seconds(185), "3 min 5 s");
        assert_eq!(seconds(7800), "2 h 10 min");
        assert_eq!(seconds(273_600), "3 d 4 h");
    }

    #[test]
    fn counts_have_separators_and_plurals() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(999), "999");
    }

    #[test]
    fn bars_show_any_use_and_never_overflow() {
        assert_eq!(bar(0, 100, 10), "[----------]");
        assert_eq!(bar(1, 1000, 10), "[#---------]");
        assert_eq!(bar(50, 100, 10), "[#####-----]");
        assert_eq!(bar(500, 100, 10), "[##########]");
        assert_eq!(bar(0, 0, 4), "[----]");
        assert!((percent(1, 4) - 25.0).abs() < 1e-9);
    }

    #[test]
    fn tables_line_up_and_leave_no_trailing_spaces() {
        let rows = [
            vec!["a".to_owned(), "long cell".to_owned()],
            vec!["bcd".to_owned(), "é".to_owned()],
        ];
        assert_eq!(
            table(&["ID", "NAME"], &rows),
            "ID   NAME\na    long cell\nbcd  é"
        );
    }

    #[test]
    fn moments_and_paths_are_written_for_people_and_shells() {
        let time: Timestamp = "2026-05-04T03:02:01Z".parse().unwrap();
        assert_eq!(moment(time, TimeZone::UTC), "2026-05-04 03:02");
        let path = |text: &str| quoted(&FilePath::parse(text).unwrap());
        assert_eq!(path("a/b.txt"), "a/b.txt");
        assert_eq!(path("it's"), "'it'\\''s'");
        assert_eq!(path("-rf"), "'-rf'");
    }
}
