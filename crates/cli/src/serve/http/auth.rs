//! The bearer token.

use super::super::Server;
use super::super::refusal::Refusal;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// SHA-256 of a token: tokens of any length compare in the same time.
#[derive(Clone)]
pub(in crate::serve) struct Digest([u8; 32]);

impl Digest {
    pub(in crate::serve) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Looks at every byte, whatever the first ones say.
    fn is(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

/// Lets requests through that bear the token, or all if there is none.
pub(super) async fn check(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let Some(expected) = &server.token else { return next.run(request).await };
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = header.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Digest::of(token.trim()))
    });
    match given {
        Some(given) if given.is(expected) => next.run(request).await,
        Some(_) => Refusal::new(StatusCode::UNAUTHORIZED, "that is not the token").into_response(),
        None => {
            let text = "a token is needed: send the header 'Authorization: Bearer TOKEN'";
            Refusal::new(StatusCode::UNAUTHORIZED, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_is_the_token() {
        let token = Digest::of("secret");
        assert!(token.is(&Digest::of("secret")));
        assert!(["", "secre", "secret ", "Secret"].iter().all(|other| !token.is(&Digest::of(other))));
    }
}
