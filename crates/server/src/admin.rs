//! Routes of operators, below `/v1/admin`: keys, the record, how everything is doing.

mod audit;
mod keys;
mod status;

use std::sync::Arc;

use axum::Router;
use engine::{Error, ErrorKind};
use store::StoreError;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::identity::Identity;
use crate::record::explain;

/// The routes.
pub(crate) fn router() -> Router<Arc<App>> {
    described().split_for_parts().0
}

/// The routes with their description.
pub(crate) fn described() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(keys::create, keys::list)).routes(routes!(keys::revoke)).routes(routes!(audit::query)).routes(routes!(status::show))
}

/// Whether this caller may manage keys. Whoever can make a key can make one for any pool, so that a caller bound to some pools cannot.
fn may_manage(identity: &Identity) -> Result<(), Error> {
    if !identity.roles.admin {
        return Err(Error::new(ErrorKind::Denied, "this key may not manage keys").hint("use a key with the role `admin`"));
    }
    if identity.pools.is_some() {
        return Err(Error::new(ErrorKind::Denied, "a caller bound to some pools may not manage keys").hint("use a key for all pools"));
    }
    Ok(())
}

/// Whether this caller may look at the record and at how everything is doing.
fn may_observe(identity: &Identity) -> Result<(), Error> {
    if identity.roles.observe || identity.roles.admin {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Denied, "this key may not read the record").hint("use a key with the role `observe`"))
}

/// What a caller hears of an error of the store; the operator hears all of it.
fn refused(error: StoreError) -> Error {
    let (kind, message) = match &error {
        StoreError::InvalidKey(message) => return Error::new(ErrorKind::InvalidRequest, message.clone()),
        StoreError::NoSuchKey(_) => (ErrorKind::NotFound, error.to_string()),
        StoreError::RevokedForNow { .. } => (ErrorKind::Unavailable, "the key is refused from now on, but that could not be put on record".to_owned()),
        _ => (ErrorKind::Unavailable, "the record cannot be used".to_owned()),
    };
    let hint = match kind {
        ErrorKind::NotFound => "see `GET /v1/admin/keys`",
        _ => "see the server's log, and ask again",
    };
    Error { detail: Some(explain(&error)), ..Error::new(kind, message).hint(hint) }
}

/// Does what takes its time with the store, away from the threads that answer requests.
async fn with_store<T: Send + 'static>(app: &App, work: impl FnOnce(&store::Store) -> Result<T, StoreError> + Send + 'static) -> Result<T, Error> {
    let store = Arc::clone(&app.store);
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.map_err(|error| Error { detail: Some(error.to_string()), ..Error::new(ErrorKind::Internal, "the request failed inside the server") })?.map_err(refused)
}

#[cfg(test)]
mod tests;
