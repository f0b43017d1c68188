//! Times as people type and read them. Times of the API are RFC 3339 in UTC, which sort as texts.

use weft_control::timestamp::UnixMillis;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How long something takes, as Docker says it: `About a minute`, `3 hours`.
pub(crate) fn length(seconds: u64) -> String {
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3_600 => format!("{} minutes", seconds / MINUTE),
        3_600..7_200 => "About an hour".to_owned(),
        7_200..172_800 => format!("{} hours", seconds / HOUR),
        172_800..1_209_600 => format!("{} days", seconds / DAY),
        1_209_600..5_184_000 => format!("{} weeks", seconds / DAY / 7),
        5_184_000..63_072_000 => format!("{} months", seconds / DAY / 30),
        _ => format!("{} years", seconds / DAY / 365),
    }
}

/// How long ago a time of the API was, seconds; 0 for one that is none or lies ahead.
pub(crate) fn seconds_since(text: &str, now: UnixMillis) -> u64 {
    read(text).map_or(0, |then| now.0.saturating_sub(then.0) / 1_000)
}

/// The time that `until=` means, as a text that sorts with those of the API: a length of time before `now` (`24h`,
/// `1h30m`), seconds since 1970, a date, or a date and time in UTC.
pub(crate) fn until(text: &str, now: UnixMillis) -> Option<String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(UnixMillis(seconds.checked_mul(1_000)?).to_string());
    }
    if let Some(seconds) = seconds(text) {
        return Some(UnixMillis(now.0.saturating_sub(seconds.checked_mul(1_000)?)).to_string());
    }
    let day = text.get(..10)?;
    read(&format!("{day}T00:00:00Z"))?;
    let sorts = text.len() == 10 || read(text).is_some();
    sorts.then(|| text.trim_end_matches('Z').to_owned())
}

/// Seconds of `1h30m`, `90s`, `2d`.
fn seconds(text: &str) -> Option<u64> {
    let (mut total, mut number) = (0_u64, String::new());
    for character in text.chars() {
        let unit = match character {
            '0'..='9' => {
                number.push(character);
                continue;
            }
            's' => 1,
            'm' => MINUTE,
            'h' => HOUR,
            'd' => DAY,
            _ => return None,
        };
        let count: u64 = std::mem::take(&mut number).parse().ok()?;
        total = total.checked_add(count.checked_mul(unit)?)?;
    }
    (number.is_empty() && !text.is_empty()).then_some(total)
}

/// Reads `2026-11-20T10:00:00[.123]Z`.
fn read(text: &str) -> Option<UnixMillis> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let number = |text: &str| text.parse::<u64>().ok();
    let [year, month, day] = parts(date, '-')?.map(number);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = parts(time, ':')?.map(number);
    let millis: String = format!("{fraction}000").chars().take(3).collect();
    let (month, day, hour, minute, second) = (month?, day?, hour?, minute?, second?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days(year?, month, day)?;
    Some(UnixMillis((days * DAY + hour * HOUR + minute * MINUTE + second) * 1_000 + number(&millis)?))
}

fn parts(text: &str, at: char) -> Option<[&str; 3]> {
    let parts: Vec<_> = text.split(at).collect();
    parts.try_into().ok()
}

/// Days since 1970-01-01 in the Gregorian calendar, counted in years from 1 March so that the leap day is the last.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    (365 * year + year / 4 - year / 100 + year / 400 + day_of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T10:00:00Z.
    const NOW: UnixMillis = UnixMillis(1_795_255_200_000);

    #[test]
    fn times_of_the_api_are_read_as_they_were_written() {
        for millis in [0, 951_782_399_999, 951_868_799_000, 1_795_255_200_123, 4_102_444_800_000] {
            assert_eq!(read(&UnixMillis(millis).to_string()), Some(UnixMillis(millis)), "{millis}");
        }
        assert_eq!(NOW.to_string(), "2026-11-21T10:00:00.000000000Z");
        for bad in
            ["", "now", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00Z", "1969-12-31T00:00:00Z"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn until_takes_lengths_numbers_dates_and_times() {
        for (text, sorts_as) in [
            ("24h", "2026-11-20T10:00:00.000000000Z"),
            ("1h30m", "2026-11-21T08:30:00.000000000Z"),
            ("0", "1970-01-01T00:00:00.000000000Z"),
            ("2026-11-20", "2026-11-20"),
            ("2026-11-20T09:08:07Z", "2026-11-20T09:08:07"),
        ] {
            assert_eq!(until(text, NOW).as_deref(), Some(sorts_as), "{text}");
        }
        for bad in ["", "h", "tomorrow", "2026-11-99", "5x"] {
            assert_eq!(until(bad, NOW), None, "{bad}");
        }
    }

    #[test]
    fn lengths_are_said_as_docker_says_them() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (600, "10 minutes"),
            (3_600, "About an hour"),
            (86_400, "24 hours"),
            (172_800, "2 days"),
            (1_209_600, "2 weeks"),
        ] {
            assert_eq!(length(seconds), text);
        }
        assert_eq!(seconds_since("2026-11-21T09:59:00.000000000Z", NOW), 60);
        assert_eq!(seconds_since("0001-01-01T00:00:00Z", NOW), 0);
    }
}
