//! How often a caller may ask, and how many bytes it may move.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use engine::{Error, ErrorKind};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::app::App;
use crate::error::refusal;
use crate::metrics;
use crate::settings::Share;

const HOUR: Duration = Duration::from_secs(3600);
/// So many callers are remembered before those are looked for that have not called for an hour: their allowance is full again.
const MANY: usize = 1024;

/// What a caller may still do.
#[derive(Debug)]
pub(crate) struct Allowance {
    share: Share,
    requests: Option<DefaultDirectRateLimiter>,
    bytes: Option<Mutex<Bytes>>,
    asked: Mutex<Instant>,
}

/// Bytes left. May be less than none: how long a body is turns out when it has passed.
#[derive(Debug)]
struct Bytes {
    left: f64,
    since: Instant,
    per_hour: f64,
}

impl Bytes {
    /// As of now.
    fn refill(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.since).as_secs_f64() * self.per_hour / HOUR.as_secs_f64();
        self.left = (self.left + earned).min(self.per_hour);
        self.since = now;
    }

    /// How long until there is something left.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        (self.left <= 0.0).then(|| Duration::from_secs_f64((1.0 - self.left) * HOUR.as_secs_f64() / self.per_hour))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a quota need not be exact beyond 2^53 bytes")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

impl Allowance {
    fn new(share: Share) -> Self {
        let requests = share.requests_per_minute.map(|count| RateLimiter::direct(Quota::per_minute(NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN))));
        let bytes = share.bytes_per_hour.map(|count| {
            let per_hour = float(count.max(1));
            Mutex::new(Bytes { left: per_hour, since: Instant::now(), per_hour })
        });
        Self { share, requests, bytes, asked: Mutex::new(Instant::now()) }
    }

    /// One more request.
    ///
    /// # Errors
    /// `limit`, with the time to wait.
    fn ask(&self) -> Result<(), Error> {
        let refused = |message: String, wait: Duration| {
            let mut error = Error::new(ErrorKind::Limit, message).hint("wait, or ask for a larger share");
            error.retry_after = Some(Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)));
            Err(error)
        };
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if let Some(bytes) = &self.bytes
            && let Some(wait) = bytes.lock().unwrap_or_else(PoisonError::into_inner).wait(Instant::now())
        {
            return refused(format!("this key has moved its {} bytes of the hour", self.share.bytes_per_hour.unwrap_or_default()), wait);
        }
        if let Some(Err(until)) = self.requests.as_ref().map(|requests| requests.check()) {
            let wait = until.wait_time_from(DefaultClock::default().now());
            return refused(format!("this key has made its {} requests of the minute", self.share.requests_per_minute.unwrap_or_default()), wait);
        }
        Ok(())
    }

    /// So many bytes have been moved.
    pub(crate) fn spend(&self, count: u64) {
        if let Some(bytes) = &self.bytes {
            bytes.lock().unwrap_or_else(PoisonError::into_inner).left -= float(count);
        }
    }
}

/// The allowances of all callers.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    callers: Mutex<HashMap<String, Arc<Allowance>>>,
}

impl Allowances {
    /// That of a key, or of whoever has none, by its name; a new one where its share has changed.
    pub(crate) fn of(&self, name: &str, share: Share) -> Arc<Allowance> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = callers.get(name).filter(|known| known.share == share) {
            return Arc::clone(known);
        }
        if callers.len() >= MANY {
            callers.retain(|_, known| known.asked.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < HOUR);
        }
        let fresh = Arc::new(Allowance::new(share));
        callers.insert(name.to_owned(), Arc::clone(&fresh));
        fresh
    }
}

/// Lets requests pass that are within their caller's allowance.
pub(crate) async fn check(State(_app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if let Some(Err(error)) = request.extensions().get::<Arc<Allowance>>().map(|allowance| allowance.ask()) {
        metrics::refused("rate");
        return refusal(request.uri().path(), error);
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_a_minute_are_counted_for_each_caller() {
        let allowances = Allowances::default();
        let share = Share { requests_per_minute: Some(2), ..Share::default() };
        assert!(allowances.of("one", share).ask().is_ok() && allowances.of("one", share).ask().is_ok());
        let error = allowances.of("one", share).ask().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Limit);
        assert!((1..=30).contains(&error.retry_after.unwrap().as_secs()), "{error:?}");
        assert!(allowances.of("two", share).ask().is_ok(), "another caller");
        assert!(allowances.of("one", Share::default()).ask().is_ok(), "another share");
    }

    #[test]
    fn bytes_of_an_hour_come_back_with_time() {
        let share = Share { bytes_per_hour: Some(3600), ..Share::default() };
        let allowance = Allowance::new(share);
        allowance.spend(3599);
        assert!(allowance.ask().is_ok());
        allowance.spend(100);
        let error = allowance.ask().unwrap_err();
        assert!((98..=101).contains(&error.retry_after.unwrap().as_secs()), "{error:?}");
        let mut bytes = allowance.bytes.as_ref().unwrap().lock().unwrap();
        let later = Instant::now() + Duration::from_secs(102);
        assert_eq!(bytes.wait(later), None);
        bytes.refill(later + HOUR * 2);
        assert!(bytes.left <= 3600.0, "never more than an hour's");
    }

    #[test]
    fn callers_that_stay_away_are_forgotten() {
        let allowances = Allowances::default();
        for number in 0..MANY {
            let allowance = allowances.of(&format!("{number}"), Share::default());
            *allowance.asked.lock().unwrap() = Instant::now().checked_sub(HOUR * 2).unwrap();
        }
        allowances.of("new", Share::default());
        assert_eq!(allowances.callers.lock().unwrap().len(), 1);
    }
}
