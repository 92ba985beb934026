//! Request ids: the caller's, or one of ours.

use axum::http::HeaderMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What one request is called in answers and in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::serve) struct RequestId(pub(in crate::serve) String);

/// Makes ids that no other process makes: a random beginning and a count.
pub(in crate::serve) struct Ids {
    start: u32,
    next: AtomicU64,
}

impl Ids {
    pub(in crate::serve) fn new() -> Self {
        // The standard library's hashers start from the system's randomness.
        Self { start: RandomState::new().hash_one(std::process::id()) as u32, next: AtomicU64::new(1) }
    }

    /// The `x-request-id` of the request if it is a short word, or else a new one.
    pub(super) fn of(&self, headers: &HeaderMap) -> RequestId {
        let word =
            |text: &&str| (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        let given = headers.get("x-request-id").and_then(|value| value.to_str().ok()).filter(word);
        RequestId(given.map_or_else(
            || format!("{:08x}-{:x}", self.start, self.next.fetch_add(1, Relaxed)),
            str::to_owned,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn good_ids_are_kept_and_others_replaced() {
        let ids = Ids::new();
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_str(value).unwrap());
            ids.of(&headers).0
        };
        assert_eq!(with("abc-123"), "abc-123");
        let long = "x".repeat(129);
        let made: Vec<_> = ["", "two words", &long].map(with).into();
        assert!(made.iter().all(|id| id.len() < 40 && id.contains('-')), "{made:?}");
        assert_ne!(made[0], made[1]);
    }
}
