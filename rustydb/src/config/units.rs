//! Sizes and durations as people write them: `4GiB`, `70%`, `30s`.

use std::time::Duration;

/// Multiples a size may be given in. `KB` and its like are powers of ten, `KiB` powers of two; a lone letter is the
/// power of two, as in most databases.
const SIZE_UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("kib", 1 << 10),
    ("k", 1 << 10),
    ("mb", 1_000_000),
    ("mib", 1 << 20),
    ("m", 1 << 20),
    ("gb", 1_000_000_000),
    ("gib", 1 << 30),
    ("g", 1 << 30),
    ("tb", 1_000_000_000_000),
    ("tib", 1 << 40),
    ("t", 1 << 40),
];

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Bytes of a size such as `512MB`, `4GiB`, `1.5g` or, when `whole` (the size of the machine) is known, `70%`.
pub(crate) fn parse_size(text: &str, whole: Option<u64>) -> Result<u64, String> {
    let help = || format!("\"{text}\" is not a size; write for example 512MiB, 4GiB or 70%");
    let (number, unit) = split_number(text).ok_or_else(help)?;
    if unit == "%" {
        let whole = whole.ok_or_else(|| format!("\"{text}\": a share of the memory cannot be used here"))?;
        if !(0.0..=100.0).contains(&number) {
            return Err(format!("\"{text}\" is more than there is"));
        }
        return Ok((whole as f64 * number / 100.0) as u64);
    }
    let unit = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(help)?;
    let bytes = number * unit.1 as f64;
    if bytes >= 2f64.powi(63) { Err(format!("\"{text}\" is too large")) } else { Ok(bytes as u64) }
}

/// A duration such as `500ms`, `30s`, `5min`; a lone `0` means none.
pub(crate) fn parse_duration(text: &str) -> Result<Option<Duration>, String> {
    let help = || format!("\"{text}\" is not a duration; write for example 500ms, 30s, 5min, or 0 for none");
    let (number, unit) = split_number(text).ok_or_else(help)?;
    if number == 0.0 {
        return Ok(None);
    }
    let unit = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(help)?;
    let milliseconds = number * unit.1 as f64;
    // A century: beyond it, clocks overflow before statements end.
    if milliseconds > 3.2e12 {
        Err(format!("\"{text}\" is too long"))
    } else {
        Ok(Some(Duration::from_millis(milliseconds as u64)))
    }
}

fn split_number(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim().to_ascii_lowercase()))
}

/// Bytes of memory this process may use: the machine's, or the container's if that is less. `None` off Linux.
pub(crate) fn machine_memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let total = read("/proc/meminfo").and_then(|text| memory_total(&text))?;
    let container = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse().ok());
    Some(container.map_or(total, |limit: u64| limit.min(total)))
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::{memory_total, parse_duration, parse_size};
    use std::time::Duration;

    #[test]
    fn sizes_are_read_in_all_their_spellings() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4_096),
            ("512MB", 512_000_000),
            ("4GiB", 4 << 30),
            ("1.5 g", 3 << 29),
            ("70%", 700),
            ("1tib", 1 << 40),
        ] {
            assert_eq!(parse_size(text, Some(1_000)), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in ["", "GiB", "4 bananas", "-1", "1e9", "..", "101%", "99999999999TiB"] {
            assert!(parse_size(text, Some(1_000)).is_err(), "{text}");
        }
        assert!(parse_size("four", None).unwrap_err().contains("512MiB"));
        assert!(parse_size("70%", None).is_err());
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("0"), Ok(None));
        assert_eq!(parse_duration("500ms"), Ok(Some(Duration::from_millis(500))));
        assert_eq!(parse_duration("1.5min"), Ok(Some(Duration::from_secs(90))));
        for text in ["30", "s", "soon", "99999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_machines_memory_is_found() {
        assert_eq!(memory_total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2_097_152));
        assert_eq!(memory_total("nothing"), None);
    }
}
