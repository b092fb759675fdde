//! Retention: the newest snapshot of each of the last n hours, days, ISO weeks, months and years
//! that have one, as the clock of the machine that was backed up showed them. "Within" counts back
//! from the newest snapshot of the group, not from now: a source that is no longer backed up keeps
//! what it has.

use std::fmt;

use crate::format::snapshot::Snapshot;

use super::Decision;

const NS: i64 = 1_000_000_000;
const DAY_S: i64 = 86_400;

/// How many of each kind are kept; `u32::MAX` is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    pub last: u32,
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
    pub within: Option<Span>,
    /// Snapshots that carry any of these.
    pub tags: Vec<String>,
}

/// A span of calendar time, such as 1y6m.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    pub years: u32,
    pub months: u32,
    pub days: u32,
    pub hours: u32,
}

/// Why a snapshot stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    Last,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
    Within,
    Tag { tag: String },
    Held { reason: String },
    Retained { until_ns: i64 },
}

impl Policy {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds to each decision what keeps it. `decisions` are one group's, newest first.
    pub(super) fn apply(&self, decisions: &mut [Decision]) {
        let Some(newest) = decisions.first().map(|decision| local_s(&decision.info.snapshot))
        else {
            return;
        };
        let since = self.within.map(|span| span.before(newest));
        let mut buckets = [
            Bucket::new(self.last, Keep::Last),
            Bucket::new(self.hourly, Keep::Hourly),
            Bucket::new(self.daily, Keep::Daily),
            Bucket::new(self.weekly, Keep::Weekly),
            Bucket::new(self.monthly, Keep::Monthly),
            Bucket::new(self.yearly, Keep::Yearly),
        ];
        for (place, decision) in (0..).zip(decisions) {
            let snapshot = &decision.info.snapshot;
            let at = local_s(snapshot);
            for bucket in &mut buckets {
                decision.keep.extend(bucket.take(bucket_of(&bucket.keep, at, place)));
            }
            if since.is_some_and(|since| at >= since) {
                decision.keep.push(Keep::Within);
            }
            let tag = self.tags.iter().find(|tag| snapshot.tags.contains(tag));
            decision.keep.extend(tag.map(|tag| Keep::Tag { tag: tag.clone() }));
        }
    }
}

/// The last `left` values that are still to be kept.
struct Bucket {
    left: u32,
    keep: Keep,
    seen: Option<i64>,
}

impl Bucket {
    fn new(left: u32, keep: Keep) -> Self {
        Self { left, keep, seen: None }
    }

    /// The first of each value is kept, while there are values left.
    fn take(&mut self, value: i64) -> Option<Keep> {
        if self.left == 0 || self.seen == Some(value) {
            return None;
        }
        self.seen = Some(value);
        self.left -= u32::from(self.left != u32::MAX);
        Some(self.keep.clone())
    }
}

fn bucket_of(keep: &Keep, at: i64, place: i64) -> i64 {
    let day = at.div_euclid(DAY_S);
    let (year, month, _) = civil(day);
    match keep {
        Keep::Hourly => at.div_euclid(3600),
        Keep::Daily => day,
        // 1970-01-01 was a Thursday; weeks begin on Monday.
        Keep::Weekly => (day + 3).div_euclid(7),
        Keep::Monthly => year * 12 + month,
        Keep::Yearly => year,
        _ => place,
    }
}

/// What the clock on the wall showed, in seconds.
fn local_s(snapshot: &Snapshot) -> i64 {
    snapshot.time_ns.div_euclid(NS) + i64::from(snapshot.utc_offset_s)
}

impl Span {
    /// So long before `at`; a day that the month does not have becomes its last.
    fn before(&self, at: i64) -> i64 {
        let (day, in_day) = (at.div_euclid(DAY_S), at.rem_euclid(DAY_S));
        let (year, month, of_month) = civil(day);
        let months = year * 12 + month - 1 - i64::from(self.years) * 12 - i64::from(self.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
        let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
        let length = next - days(year, month, 1);
        let day = days(year, month, of_month.min(length)) - i64::from(self.days);
        day * DAY_S + in_day - i64::from(self.hours) * 3600
    }
}

/// Year, month and day of month of a day since 1970-01-01 (Hinnant, chrono-compatible low-level
/// date algorithms).
fn civil(day: i64) -> (i64, i64, i64) {
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970-01-01; the same source.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// As it is written on the command line, which is how it stands in records.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("last", self.last),
            ("hourly", self.hourly),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ];
        let mut parts: Vec<String> = Vec::new();
        for (kind, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            let count = if count == u32::MAX { "all".to_owned() } else { count.to_string() };
            parts.push(format!("--keep-{kind} {count}"));
        }
        parts.extend(self.within.map(|span| format!("--keep-within {span}")));
        parts.extend(self.tags.iter().map(|tag| format!("--keep-tag {tag}")));
        f.write_str(&parts.join(" "))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')];
        parts.iter().filter(|(n, _)| *n > 0).try_for_each(|(n, unit)| write!(f, "{n}{unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_inverse() {
        for (day, date) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (11_016, (2000, 2, 29)),
            (20_779, (2026, 11, 22)),
        ] {
            assert_eq!(civil(day), date);
            assert_eq!(days(date.0, date.1, date.2), day);
        }
        (-800_000..800_000).step_by(37).for_each(|day| {
            let (y, m, d) = civil(day);
            assert_eq!(days(y, m, d), day);
        });
    }

    #[test]
    fn spans_count_back_by_the_calendar() {
        let at = |y, m, d| days(y, m, d) * DAY_S + 3600;
        let span = |years, months, days, hours| Span { years, months, days, hours };
        assert_eq!(span(0, 1, 0, 0).before(at(2026, 3, 31)), at(2026, 2, 28));
        assert_eq!(span(1, 0, 0, 0).before(at(2024, 2, 29)), at(2023, 2, 28));
        assert_eq!(span(0, 14, 0, 0).before(at(2026, 1, 15)), at(2024, 11, 15));
        assert_eq!(span(0, 0, 1, 2).before(at(2026, 1, 1)), at(2025, 12, 31) - 7200);
        assert_eq!(span(1, 6, 0, 12).to_string(), "1y6m12h");
    }
}
