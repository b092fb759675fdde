//! Numbers for people: sizes in binary units, counts, durations, rates, times in the local zone;
//! and sizes as people write them.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use strongroom::env::TimeNs;
use strongroom::repo::base_cache::BASE_CACHE_BYTES_MIN;

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
/// Digits of an id in a table: one in 10^14 for a pair, and `SNAP` takes any number of them.
const SHORT_ID: usize = 12;

/// "0 B", "1023 B", "1.5 KiB", "12.3 GiB", "123 TiB".
pub(crate) fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 1;
    // 1023.5 and more would be shown as 1024.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// "1,234,567".
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// "1 file", "2 files".
pub(crate) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// "350 ms", "12.3 s", "4 min 05 s", "3 h 20 min".
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if seconds < 0.9995 {
        format!("{:.0} ms", seconds.max(0.0) * 1000.0)
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
    }
}

/// "123 MiB/s".
pub(crate) fn rate(amount_bytes: u64, seconds: f64) -> String {
    if seconds <= 0.0 {
        return "-".to_owned();
    }
    format!("{}/s", bytes((amount_bytes as f64 / seconds) as u64))
}

/// "2026-11-22 07:50" in `zone`.
pub(crate) fn minute(time: TimeNs, zone: &TimeZone) -> String {
    timestamp(time).to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// A file's time. Seconds that jiff cannot show (years beyond ±9999) are given as a number.
pub(crate) fn minute_of_secs(seconds: i64, zone: &TimeZone) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
        Err(_) => format!("@{seconds}"),
    }
}

/// RFC 3339 in UTC with nanoseconds where there are some, for JSON.
pub(crate) fn rfc3339(time: TimeNs) -> String {
    timestamp(time).to_string()
}

pub(crate) fn rfc3339_of_secs(seconds: i64, nanos: u32) -> Option<String> {
    let time = Timestamp::from_second(seconds).ok()?;
    Some(time.checked_add(SignedDuration::from_nanos(nanos.into())).ok()?.to_string())
}

/// The local zone's name and its offset from UTC in seconds at `time`.
pub(crate) fn local_zone(time: TimeNs) -> (String, i32) {
    let zone = TimeZone::system();
    let offset = zone.to_offset(timestamp(time));
    let name = zone.iana_name().map_or_else(|| offset.to_string(), str::to_owned);
    (name, offset.seconds())
}

pub(crate) fn short(id: impl ToString) -> String {
    let mut id = id.to_string();
    id.truncate(SHORT_ID);
    id
}

/// "512", "64KiB", "64k", "1 MiB", "1g": binary units, whatever the case. "KB" and "MB" are
/// refused, since people mean either 1000 or 1024 by them.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a size is a number with a unit: 1MiB, 64KiB")?;
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" | "mb" | "gb" | "tb" => {
            return Err("use KiB, MiB or GiB (1024, 1024², 1024³)".to_owned());
        }
        _ => return Err(format!("no such unit: {}", unit.trim_start())),
    };
    number.checked_mul(factor).ok_or_else(|| "sizes end below 16 EiB".to_owned())
}

/// Room for bases: none, or enough to be of use.
pub(crate) fn parse_base_cache(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        1..BASE_CACHE_BYTES_MIN => {
            Err("1MiB is the least that is of use; 0 keeps nothing".to_owned())
        }
        size => Ok(size),
    }
}

/// The size of a chunk.
pub(crate) fn parse_chunk_size(text: &str) -> Result<u32, String> {
    parse_size(text)?.try_into().map_err(|_| "chunks end below 4 GiB".to_owned())
}

fn timestamp(time: TimeNs) -> Timestamp {
    Timestamp::from_nanosecond(time.into()).expect("64 bits of nanoseconds are years 1677 to 2262")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_or_so() {
        let check = |n, shown: &str| assert_eq!(bytes(n), shown);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(1536, "1.5 KiB");
        check(102_348, "99.9 KiB");
        check(102_400, "100 KiB");
        check(1_048_063, "1023 KiB");
        check(1_048_575, "1.0 MiB");
        check(3 << 30, "3.0 GiB");
        check(u64::MAX, "16.0 EiB");
    }

    #[test]
    fn counts_are_grouped() {
        let check = |n, shown: &str| assert_eq!(count(n), shown);
        check(0, "0");
        check(999, "999");
        check(1000, "1,000");
        check(1_234_567, "1,234,567");
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(counted(0, "file", "files"), "0 files");
    }

    #[test]
    fn durations_and_rates() {
        let check = |seconds, shown: &str| assert_eq!(duration(seconds), shown);
        check(0.0, "0 ms");
        check(0.3504, "350 ms");
        check(0.9999, "1.0 s");
        check(12.34, "12.3 s");
        check(59.99, "1 min 00 s");
        check(245.0, "4 min 05 s");
        check(3599.9, "1 h 00 min");
        check(12_000.0, "3 h 20 min");
        assert_eq!(rate(10 << 20, 2.0), "5.0 MiB/s");
        assert_eq!(rate(10, 0.0), "-");
    }

    #[test]
    fn times_are_local_in_tables_and_utc_in_json() {
        let zone = TimeZone::get("Europe/Zurich").unwrap();
        assert_eq!(minute(1_760_000_000_000_000_000, &zone), "2025-10-09 10:53");
        assert_eq!(minute_of_secs(i64::MAX, &zone), "@9223372036854775807");
        assert_eq!(rfc3339(1_760_000_000_000_000_005), "2025-10-09T08:53:20.000000005Z");
        assert_eq!(rfc3339_of_secs(-1, 500_000_000).as_deref(), Some("1969-12-31T23:59:59.5Z"));
        assert_eq!(rfc3339_of_secs(i64::MIN, 0), None);
        assert_eq!(rfc3339(i64::MIN), "1677-09-21T00:12:43.145224192Z");
    }

    #[test]
    fn sizes_as_people_write_them() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_size(text).ok(), expected, "{text}");
        };
        check("512", Some(512));
        check("512k", Some(512 << 10));
        check("64KiB", Some(64 << 10));
        check("1MiB", Some(1 << 20));
        check("1 mib", Some(1 << 20));
        check("2Mi", Some(2 << 20));
        check("3g", Some(3 << 30));
        check("20GiB", Some(20 << 30));
        check("2T", Some(2 << 40));
        check("99999999t", None);
        check("1TB", None);
        check("1MB", None);
        assert_eq!(parse_base_cache("20g"), Ok(20 << 30));
        assert_eq!(parse_base_cache("0"), Ok(0));
        assert!(parse_base_cache("1023k").is_err());
        assert_eq!(parse_chunk_size("4g"), Err("chunks end below 4 GiB".to_owned()));
        check("1.5MiB", None);
        check("-1", None);
        check("MiB", None);
        check("", None);
        check("1x", None);
        check("99999999999999999999", None);
    }
}
