//! Opening the store and the repository that the settings name.

use std::sync::Arc;

use strongroom::env::Env;
use strongroom::repo::Repo;
use strongroom::store::{LocalStore, Store};

use crate::Tool;
use crate::fail::Fail;
use crate::format::short;
use crate::secret;

pub(crate) fn env(tool: &Tool) -> Env {
    Env::system(tool.settings.threads.value)
}

pub(crate) fn store(tool: &Tool) -> Result<Arc<dyn Store>, Fail> {
    Ok(Arc::new(LocalStore::open(tool.settings.repo()?)?))
}

pub(crate) fn repo(tool: &Tool) -> Result<Repo, Fail> {
    // Before a password is asked for: a wrong path should not cost one.
    let store = store(tool)?;
    let secret = secret::existing(tool)?;
    let cache = tool.settings.cache_dir.as_ref().map(|setting| setting.value.as_path());
    let repo = Repo::open(store, secret.unlock(), cache, &env(tool))?;
    let (id, name, role) = (short(repo.id()), repo.identity_name(), repo.role());
    tool.out
        .detail(&format!("repository {id}, opened as {} ({role})", crate::sanitise::text(name)));
    Ok(repo)
}
