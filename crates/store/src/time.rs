//! Times as they are stored: RFC 3339 in UTC with milliseconds, so that their order is that of their text.

use std::time::{Duration, SystemTime};

/// The last second that has four digits for its year.
const LAST: Duration = Duration::from_millis(253_402_300_799_999);

/// As text; times before 1970 or after 9999 are moved to that border.
#[must_use]
pub fn format(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST);
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

/// The time as it comes back from where it is stored.
pub(crate) fn stored(time: SystemTime) -> SystemTime {
    parse(&format(time)).unwrap_or(time)
}

/// From text: RFC 3339 in UTC.
#[must_use]
pub fn parse(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

/// For serde.
pub(crate) mod required {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).ok_or_else(|| D::Error::custom("not a time of RFC 3339 in UTC"))
    }
}

/// For serde, where there may be none.
pub(crate) mod optional {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::required::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| super::parse(&text).ok_or_else(|| D::Error::custom("not a time of RFC 3339 in UTC"))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_has_a_text_of_the_same_length() {
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(999_999_999_999);
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(format(far), "9999-12-31T23:59:59.999Z");
        assert_eq!(format(before), "1970-01-01T00:00:00.000Z");
        assert_eq!(format(parse("2026-01-02T03:04:05.678Z").unwrap()), "2026-01-02T03:04:05.678Z");
        assert_eq!(parse("yesterday"), None);
        let precise = SystemTime::UNIX_EPOCH + Duration::new(1, 2_345_678);
        assert_eq!(stored(precise), SystemTime::UNIX_EPOCH + Duration::from_millis(1002));
    }
}
