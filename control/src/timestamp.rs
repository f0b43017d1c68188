//! Wall-clock times, for people only: nothing is ordered or expired by another node's clock where safety matters.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Whether it lies more than `limit` before `now`.
    #[must_use]
    pub fn is_older_than(self, limit: std::time::Duration, now: Self) -> bool {
        u128::from(now.0.saturating_sub(self.0)) > limit.as_millis()
    }

    /// So much later.
    #[must_use]
    pub fn after(self, time: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How far two times are apart.
    #[must_use]
    pub fn apart(self, other: Self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// RFC 3339 in UTC to the second, for messages.
    #[must_use]
    pub fn to_seconds_text(self) -> String {
        let text = self.to_string();
        format!("{}Z", text.split('.').next().unwrap_or_default())
    }
}

impl fmt::Display for UnixMillis {
    /// RFC 3339 in UTC with nanoseconds, as Docker prints times.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000;
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        let nanos = self.0 % 1_000 * 1_000_000;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar.
///
/// Counts years from 1 March so that the leap day is the last, in eras of 400 years = 146,097 days; 719,468 days
/// lie between 0000-03-01 and 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000000000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999000000Z"),
            (1_767_225_599_000, "2025-12-31T23:59:59.000000000Z"),
            (4_107_542_400_123, "2100-03-01T00:00:00.123000000Z"),
        ];
        for (millis, text) in cases {
            assert_eq!(UnixMillis(millis).to_string(), text);
        }
    }

    #[test]
    fn every_day_of_a_leap_cycle_follows_the_day_before() {
        let mut before = civil(10_957); // 2000-01-01
        for day in 10_958..10_957 + 146_097 {
            let today = civil(day);
            let next_month_or_day = today.2 == before.2 + 1 || (today.2 == 1 && before.2 >= 28);
            assert!(next_month_or_day && today > before, "{before:?} then {today:?}");
            before = today;
        }
        assert_eq!(before, (2399, 12, 31));
    }
}
