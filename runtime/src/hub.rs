//! Models by name: `hf:OWNER/NAME[/FOLDER|/FILE][:VARIANT][@REVISION]` in place of a path. `FILE` is one of GGUF or
//! safetensors, `FOLDER` holds a model (`text_encoder_2`), and `VARIANT` chooses among GGUF files by the end of their
//! names (`Q8_0`).
//!
//! Files go into the cache that all Hugging Face tools share (`models--OWNER--NAME/{blobs,refs,snapshots}`), through
//! the `hf-hub` crate, and the result is a path there: the snapshot folder of a safetensors model, or a GGUF file.
//! A complete model in the cache is used without asking the network whether it is still the newest; delete its folder,
//! or name a revision, to get another one. Environment, as everywhere on the hub:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` | the cache is the first, or `hub` in the second, or `huggingface/hub` in the third; else `~/.cache/huggingface/hub` |
//! | `HF_TOKEN`, `HF_TOKEN_PATH` | the token, or its file; else `token` in `HF_HOME`, where `hf auth login` leaves it |
//! | `HF_ENDPOINT` | another hub than <https://huggingface.co> |
//! | `HF_HUB_OFFLINE` | `1`: the cache only |
//!
//! TLS is rustls with the Mozilla root certificates: nothing of the system is needed.

mod name;
mod select;
mod terminal;
mod transfer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use crate::checkpoint::folder::{encoder_in, is_index};
use crate::error::{Error, Result};
use name::HubName;
use select::Cached;
pub use terminal::TerminalProgress;

/// Told how far a download is; `()` ignores it.
pub trait Progress {
    /// A file of `size` bytes is being transferred, of which `done` are there already. Comes again for the same
    /// file, with another `done`, when a broken transfer continues.
    fn start(&mut self, file: &str, size: u64, done: u64);
    /// This many more bytes have arrived.
    fn advance(&mut self, bytes: u64);
    /// The file is complete.
    fn finish(&mut self);
}

impl Progress for () {
    fn start(&mut self, _file: &str, _size: u64, _done: u64) {}
    fn advance(&mut self, _bytes: u64) {}
    fn finish(&mut self) {}
}

/// Whether a model argument names a model on the hub rather than a path.
pub fn is_hub_name(model: &str) -> bool {
    model.starts_with(name::PREFIX)
}

/// The local path of a model on the hub, downloaded if the cache does not have it, with the settings of the
/// environment. See [`Hub::fetch`].
pub fn fetch(name: &str, progress: &mut dyn Progress) -> Result<PathBuf> {
    Hub::from_env()?.fetch(name, progress)
}

/// As [`fetch`] for the tokenizer alone: the folder of a repository with the files that are no weights. See
/// [`Hub::fetch_tokenizer`].
pub fn fetch_tokenizer(name: &str, progress: &mut dyn Progress) -> Result<PathBuf> {
    Hub::from_env()?.fetch_tokenizer(name, progress)
}

/// Where models come from and where they are kept.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Address of the hub, without a slash at the end.
    pub endpoint: String,
    /// The folder that holds `models--OWNER--NAME` folders.
    pub cache: PathBuf,
    /// For private and gated repositories.
    pub token: Option<String>,
    /// Use the cache only.
    pub offline: bool,
    /// Take PyTorch's pickles, too, where there is nothing better.
    pub pickles: bool,
    /// How many times in a row a transfer may break without a byte of progress before the download is given up.
    pub attempts: u32,
    /// How long to wait after the first break; each further one doubles it.
    pub pause: Duration,
}

impl Hub {
    /// A hub at `endpoint` with its cache in the folder `cache`.
    pub fn new(endpoint: &str, cache: impl Into<PathBuf>) -> Hub {
        Hub {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: cache.into(),
            token: None,
            offline: false,
            pickles: false,
            attempts: 5,
            pause: Duration::from_millis(500),
        }
    }

    /// The settings of the process environment (table above).
    pub fn from_env() -> Result<Hub> {
        Hub::from_variables(&|name| std::env::var(name).ok())
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Hub> {
        let get = |name| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        // hf-hub's own default panics where there is no home directory.
        let home = match (get("HF_HOME"), get("XDG_CACHE_HOME"), get("HOME").or_else(|| get("USERPROFILE"))) {
            (Some(home), _, _) => PathBuf::from(home),
            (None, Some(cache), _) => Path::new(&cache).join("huggingface"),
            (None, None, Some(user)) => Path::new(&user).join(".cache/huggingface"),
            (None, None, None) => {
                return Err(Error::Option {
                    option: "HF_HOME",
                    what: "expected a folder for downloaded models, since there is no home directory".to_owned(),
                });
            }
        };
        let cache = get("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from);
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::Option {
                option: "HF_ENDPOINT",
                what: format!("expected an address that starts with https://, found {endpoint}"),
            });
        }
        let mut hub = Hub::new(&endpoint, cache);
        hub.token = get("HF_TOKEN").or_else(|| match get("HF_TOKEN_PATH") {
            Some(path) => std::fs::read_to_string(path)
                .ok()
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty()),
            None => Cache::new(home.join("hub")).token(),
        });
        hub.offline = get("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "on", "yes", "true"].iter().any(|yes| value.eq_ignore_ascii_case(yes)));
        Ok(hub)
    }

    /// The local path of the model `name`: a folder with `config.json`, the weights and the tokenizer, or a GGUF file.
    ///
    /// Of a repository with `model.safetensors` (or its index and shards) those are taken, with the configuration and
    /// tokenizer files; of one with a single GGUF file, that; of a Diffusers pipeline, the one T5 and its tokenizer. A
    /// transfer that breaks is continued where it stopped, in this call or in the next one.
    ///
    /// # Errors
    /// One sentence each for a malformed name, an unreachable hub, a missing repository, revision or file, a refused
    /// or missing token, several GGUF files to choose from, no usable weights, and a cache that cannot be written.
    pub fn fetch(&self, name: &str, progress: &mut dyn Progress) -> Result<PathBuf> {
        let name = HubName::parse(name)?;
        let cached = match self.cached_snapshot(&name) {
            Some(snapshot) => select::cached(&snapshot, &name, self.pickles),
            None => Cached::Nothing,
        };
        match cached {
            Cached::Complete(path) => return Ok(path),
            Cached::Weights(path) if self.offline => return Ok(path),
            Cached::Ambiguous(files) if self.offline => return Err(name.error(select::ambiguous(&files, &name))),
            Cached::Nothing if self.offline => {
                return Err(name.error(format!(
                    "not in the cache {} and HF_HUB_OFFLINE forbids to download it",
                    self.cache.display()
                )));
            }
            _ => {}
        }
        match (self.download(&name, progress), cached) {
            // What is in the cache may be complete; without the hub's list of files there is no way to know.
            (Err(Failure::Unreachable(_)), Cached::Weights(path)) => Ok(path),
            (Err(failure), _) => Err(name.error(failure.sentence())),
            (Ok(path), _) => Ok(path),
        }
    }

    /// The local folder of the tokenizer of `name`, downloaded if the cache does not have it; weights are not.
    ///
    /// # Errors
    /// As [`Hub::fetch`], and if the repository has no tokenizer or a file is named.
    pub fn fetch_tokenizer(&self, name: &str, progress: &mut dyn Progress) -> Result<PathBuf> {
        let name = HubName::parse(name)?;
        if name.file.is_some() {
            return Err(name.error("expected a repository with a tokenizer, found the name of a file"));
        }
        let inside = |snapshot: PathBuf| name.folder.as_ref().map_or(snapshot.clone(), |folder| snapshot.join(folder));
        if let Some(folder) = self.cached_snapshot(&name).map(inside).filter(|folder| select::has_tokenizer(folder)) {
            return Ok(folder);
        }
        if self.offline {
            return Err(name.error(format!(
                "its tokenizer is not in the cache {} and HF_HUB_OFFLINE forbids to download it",
                self.cache.display()
            )));
        }
        self.download_companions(&name, progress).map_err(|failure| name.error(failure.sentence()))
    }

    /// Downloads what is no weights.
    fn download_companions(&self, name: &HubName, progress: &mut dyn Progress) -> Result<PathBuf, Failure> {
        let api = self.api().map_err(|error| Failure::Final(error.to_string()))?;
        let (commit, files) = self.list(&api, name)?;
        let transfer = transfer::Transfer { hub: self, api: &api, name, commit: &commit };
        let mut folder = None;
        let inside = name.folder.as_ref().map_or_else(String::new, |folder| format!("{folder}/"));
        let companions = select::COMPANIONS.iter().map(|file| format!("{inside}{file}"));
        for file in companions.filter(|file| files.contains(file)) {
            folder = transfer.file(&file, progress)?.parent().map(Path::to_owned);
        }
        if name.revision != commit {
            let reference = self.store().repo(repo(name, &name.revision)).create_ref(&commit);
            reference.map_err(|error| Failure::Final(format!("{}: {error}", self.cache.display())))?;
        }
        folder
            .filter(|folder| select::needs_no_more(folder))
            .ok_or_else(|| Failure::Final("expected tokenizer.json or spiece.model, found neither".to_owned()))
    }

    /// The folder of the revision in the cache, if the cache knows the revision.
    fn cached_snapshot(&self, name: &HubName) -> Option<PathBuf> {
        let folder = self.cache.join(repo(name, &name.revision).folder_name());
        let commit = match std::fs::read_to_string(folder.join("refs").join(&name.revision)) {
            Ok(commit) => commit.trim().to_owned(),
            // A commit needs no reference.
            Err(_) => name.revision.clone(),
        };
        let snapshot = folder.join("snapshots").join(&commit);
        (name::is_plain_name(&commit) && snapshot.is_dir()).then_some(snapshot)
    }

    /// Downloads what the snapshot lacks. Weights come last and the reference after them, so that an interrupted
    /// download is never taken for a complete one.
    fn download(&self, name: &HubName, progress: &mut dyn Progress) -> Result<PathBuf, Failure> {
        let api = self.api().map_err(|error| Failure::Final(error.to_string()))?;
        let (commit, files) = self.list(&api, name)?;
        let transfer = transfer::Transfer { hub: self, api: &api, name, commit: &commit };
        let pipeline = self.encoder(&transfer, &files, progress)?;
        let select::Selection { companions, weights, whole_folder } =
            select::select(&files, pipeline.as_ref().unwrap_or(name), self.pickles).map_err(Failure::Final)?;
        for file in companions {
            transfer.file(&file, progress)?;
        }
        let mut path = transfer.file(&weights, progress)?;
        if is_index(&weights) {
            let (folder, _) = weights.rsplit_once('/').unwrap_or_default();
            for shard in select::shards(&path).map_err(Failure::Final)? {
                let shard = if folder.is_empty() { shard } else { format!("{folder}/{shard}") };
                transfer.file(&shard, progress)?;
            }
        }
        if whole_folder {
            path.pop();
        }
        if name.revision != commit {
            let reference = self.store().repo(repo(name, &name.revision)).create_ref(&commit);
            reference.map_err(|error| Failure::Final(format!("{}: {error}", self.cache.display())))?;
        }
        Ok(path)
    }

    /// The name of the one T5 in the folder of a pipeline, as what its encoders are says.
    fn encoder(
        &self,
        transfer: &transfer::Transfer,
        files: &[String],
        progress: &mut dyn Progress,
    ) -> Result<Option<HubName>, Failure> {
        let mut pipeline = None;
        for folder in select::encoders(files, transfer.name) {
            let config = transfer.file(&format!("{folder}/config.json"), progress)?;
            pipeline = config.parent().and_then(Path::parent).map(Path::to_owned);
        }
        let Some(pipeline) = pipeline else { return Ok(None) };
        let encoder = encoder_in(&pipeline).map_err(|error| Failure::Final(error.to_string()))?;
        let folder = encoder.and_then(|folder| Some(folder.file_name()?.to_str()?.to_owned()));
        Ok(folder.map(|folder| HubName { folder: Some(folder), ..transfer.name.clone() }))
    }

    /// The commit that the revision names now, and its files.
    fn list(&self, api: &Api, name: &HubName) -> Result<(String, Vec<String>), Failure> {
        let info = |revision: &str| api.repo(repo(name, revision)).info();
        let mut failures = 0;
        let answer = loop {
            match info(&name.revision) {
                Ok(answer) => break answer,
                Err(error) => match Failure::new(error, self, name, None) {
                    Failure::Broken(_) if failures < self.attempts => self.wait(&mut failures),
                    // The hub says "not found" to an unknown revision, too.
                    Failure::Missing(_) if name.revision != name::MAIN && info(name::MAIN).is_ok() => {
                        return Err(Failure::Missing(format!("has no revision {}", name.revision)));
                    }
                    failure => return Err(failure),
                },
            }
        };
        if !name::is_plain_name(&answer.sha) {
            return Err(Failure::Final(format!("expected a commit from the hub, found {:?}", answer.sha)));
        }
        Ok((answer.sha, answer.siblings.into_iter().map(|file| file.rfilename).collect()))
    }

    fn api(&self) -> Result<Api, ApiError> {
        // The crate's own retries lose the position in a part file that an earlier run left: ours are in `transfer`.
        ApiBuilder::from_cache(self.store())
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_user_agent("pocket-t5", env!("CARGO_PKG_VERSION"))
            .with_progress(false)
            .with_retries(0)
            .build()
    }

    fn store(&self) -> Cache {
        // The crate computes relative links, which needs absolute paths.
        Cache::new(std::path::absolute(&self.cache).unwrap_or_else(|_| self.cache.clone()))
    }

    fn wait(&self, failures: &mut u32) {
        std::thread::sleep(self.pause * (1 << (*failures).min(6)));
        *failures += 1;
    }
}

fn repo(name: &HubName, revision: &str) -> Repo {
    Repo::with_revision(name.repository.clone(), RepoType::Model, revision.to_owned())
}

/// Why a request failed, as far as it decides what to do next.
#[derive(Debug)]
enum Failure {
    /// No connection at all.
    Unreachable(String),
    /// The connection broke or the hub is busy: worth another attempt.
    Broken(String),
    /// The hub does not have it.
    Missing(String),
    /// Nothing to be done.
    Final(String),
}

impl Failure {
    /// What an error of the crate means while asking for `file`, or for the list of files.
    fn new(error: ApiError, hub: &Hub, name: &HubName, file: Option<&str>) -> Failure {
        use std::io::ErrorKind::*;
        let unreachable = |what: &dyn std::fmt::Display| {
            Failure::Unreachable(format!("cannot reach {}: {what}; HF_HUB_OFFLINE=1 uses the cache only", hub.endpoint))
        };
        let error = match error {
            ApiError::RequestError(error) => *error,
            // The crate reports a broken body and a full disk alike.
            ApiError::IoError(error) => match error.kind() {
                StorageFull | QuotaExceeded | FileTooLarge | PermissionDenied | ReadOnlyFilesystem | NotFound
                | NotADirectory | IsADirectory | AlreadyExists => {
                    return Failure::Final(format!("{}: {error}", hub.cache.display()));
                }
                _ => ureq::Error::Io(error),
            },
            ApiError::LockAcquisition(path) => {
                return Failure::Broken(format!("another process holds {}", path.display()));
            }
            error => return Failure::Final(format!("unexpected answer from {}: {error}", hub.endpoint)),
        };
        match error {
            ureq::Error::StatusCode(401) if hub.token.is_none() => Failure::Final(
                "the hub asks for a token (HTTP 401): the repository is private or gated, or does not exist; \
                 set HF_TOKEN or run `hf auth login`"
                    .to_owned(),
            ),
            ureq::Error::StatusCode(401) => {
                Failure::Final("the hub does not accept the token (HTTP 401); see HF_TOKEN".to_owned())
            }
            ureq::Error::StatusCode(403) => Failure::Final(format!(
                "the hub refuses access (HTTP 403): accept the terms at {}/{} and use a token that may read it",
                hub.endpoint, name.repository
            )),
            ureq::Error::StatusCode(404) => Failure::Missing(match file {
                None => format!("no such repository on {}", hub.endpoint),
                Some(file) => format!("has no file {file} at revision {}", name.revision),
            }),
            ureq::Error::StatusCode(status @ (408 | 429 | 500..=599)) => {
                Failure::Broken(format!("{} answers with HTTP status {status}", hub.endpoint))
            }
            ureq::Error::Io(error) => match error.kind() {
                ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable => unreachable(&error),
                _ => Failure::Broken(format!("the connection to {} broke: {error}", hub.endpoint)),
            },
            error @ (ureq::Error::HostNotFound | ureq::Error::ConnectionFailed) => unreachable(&error),
            error @ (ureq::Error::Timeout(_) | ureq::Error::Protocol(_)) => {
                Failure::Broken(format!("the connection to {} broke: {error}", hub.endpoint))
            }
            error => Failure::Final(format!("unexpected answer from {}: {error}", hub.endpoint)),
        }
    }

    fn sentence(self) -> String {
        match self {
            Failure::Unreachable(what) | Failure::Broken(what) | Failure::Missing(what) | Failure::Final(what) => what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(variables: &[(&str, &str)]) -> Result<Hub> {
        Hub::from_variables(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_decides_as_everywhere_on_the_hub() {
        let plain = hub(&[("HOME", "/home/ann")]).unwrap();
        assert_eq!(plain.cache, Path::new("/home/ann/.cache/huggingface/hub"));
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert!(!plain.offline && plain.token.is_none());

        let home = [("HOME", "/home/ann"), ("XDG_CACHE_HOME", "/var/cache"), ("HF_HUB_OFFLINE", "0")];
        assert_eq!(hub(&home).unwrap().cache, Path::new("/var/cache/huggingface/hub"));
        assert!(!hub(&home).unwrap().offline);

        let all = hub(&[
            ("HF_HOME", "/big/hf"),
            ("XDG_CACHE_HOME", "/var/cache"),
            ("HF_TOKEN", " secret\n"),
            ("HF_ENDPOINT", "http://127.0.0.1:80/"),
            ("HF_HUB_OFFLINE", "True"),
        ])
        .unwrap();
        assert_eq!(all.cache, Path::new("/big/hf/hub"));
        assert_eq!(all.token.as_deref(), Some("secret"));
        assert_eq!(all.endpoint, "http://127.0.0.1:80");
        assert!(all.offline);

        assert_eq!(hub(&[("HF_HOME", "/a"), ("HF_HUB_CACHE", "/b")]).unwrap().cache, Path::new("/b"));
        assert!(hub(&[]).unwrap_err().to_string().starts_with("HF_HOME: expected a folder"));
        let wrong = hub(&[("HF_HOME", "/a"), ("HF_ENDPOINT", "mirror.example")]).unwrap_err().to_string();
        assert_eq!(wrong, "HF_ENDPOINT: expected an address that starts with https://, found mirror.example");
    }

    #[test]
    fn the_token_of_the_login_is_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "from-login\n").unwrap();
        std::fs::write(folder.path().join("other"), "from-file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(hub(&[("HF_HOME", home)]).unwrap().token.as_deref(), Some("from-login"));
        let elsewhere = [("HF_HOME", home), ("HF_HUB_CACHE", "/elsewhere")];
        assert_eq!(hub(&elsewhere).unwrap().token.as_deref(), Some("from-login"));
        let other = format!("{home}/other");
        let named = [("HF_HOME", home), ("HF_TOKEN_PATH", other.as_str())];
        assert_eq!(hub(&named).unwrap().token.as_deref(), Some("from-file"));
    }
}
