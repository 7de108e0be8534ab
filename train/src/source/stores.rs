//! Sources in S3, in GCS and on web servers. An object is read as a stream: it is never in memory, or on the disk, as a
//! whole; where a connection ends early, the rest is asked for.

use std::path::Path;

/// Whether a path is an address: `s3://BUCKET/KEY`, `gs://BUCKET/KEY`, `https://HOST/PATH` or `http://HOST/PATH`.
pub fn is_address(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.contains("://"))
}

#[cfg(all(feature = "stores", feature = "parquet"))]
pub(super) use objects::Ranged;
#[cfg(feature = "stores")]
pub use objects::{list, read};
#[cfg(not(feature = "stores"))]
pub use without::{list, read};

/// What a program says that was built without the feature.
#[cfg(not(feature = "stores"))]
mod without {
    use std::io::Read;
    use std::path::Path;

    use crate::source::Input;
    use crate::{Error, Result};

    fn refused(path: &Path) -> Error {
        Error::file(path, "expected a file of this machine, since this t5-train was built without its feature stores")
    }

    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn list(path: &Path) -> Result<Vec<Input>> {
        Err(refused(path))
    }

    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn read(path: &Path) -> Result<Box<dyn Read>> {
        Err(refused(path))
    }
}

#[cfg(feature = "stores")]
mod objects {
    use std::future::Future;
    use std::io::{Error as IoError, ErrorKind, Read};
    use std::ops::Range;
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, LazyLock};
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::stream::BoxStream;
    use futures_util::{StreamExt, TryStreamExt};
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
    use object_store::http::HttpBuilder;
    use object_store::path::Path as Location;
    use object_store::{
        ClientConfigKey, ClientOptions, Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStore,
        ObjectStoreExt, RetryConfig,
    };
    use tokio::runtime::Runtime;

    use crate::source::{Input, is_hidden};
    use crate::{Error, Result};

    /// A connection that gives nothing for so long has ended.
    const STALLED: Duration = Duration::from_secs(60);
    /// A request may take long: its answer is read as slowly as pages are cleaned.
    const LONGEST: &str = "86400 seconds";
    /// So often the rest of an object is asked for, without a mebibyte in between.
    const ATTEMPTS: u32 = 5;
    /// Bytes after which an attempt was worth it.
    const PROGRESS: u64 = 1 << 20;

    /// The threads that wait for the network.
    static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("stores").enable_all().build()
    });

    /// Waits for what has to come from the network. No thread that runs other futures may call it.
    fn wait<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
        match &*RUNTIME {
            Ok(runtime) => Ok(runtime.block_on(future)),
            Err(error) => Err(IoError::new(error.kind(), format!("threads for the network: {error}"))),
        }
    }

    /// One object, or a folder of objects.
    #[derive(Clone)]
    struct Object {
        /// The address, for messages.
        shown: PathBuf,
        /// What stands before an object's place in its address.
        root: String,
        store: Arc<dyn ObjectStore>,
        location: Location,
    }

    impl Object {
        fn new(path: &Path) -> Result<Object> {
            let wrong = |what: &str| Error::file(path, what);
            let known = "expected s3://BUCKET/KEY, gs://BUCKET/KEY, https://HOST/PATH or http://HOST/PATH";
            let address = path.to_str().ok_or_else(|| wrong("expected an address in UTF-8"))?;
            let (scheme, rest) = address.split_once("://").ok_or_else(|| wrong(known))?;
            let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
            if host.is_empty() {
                return Err(wrong(known));
            }
            let root = format!("{scheme}://{host}/");
            let retry = RetryConfig { max_retries: 3, retry_timeout: STALLED, ..RetryConfig::default() };
            let unusable = |error: &dyn std::fmt::Display| wrong(&format!("expected an address: {error}"));
            let refused = |error: StoreError| unusable(&error);
            let (store, location): (Arc<dyn ObjectStore>, _) = match scheme {
                "s3" | "s3a" => {
                    let builder = AmazonS3Builder::from_env().with_url(&root).with_retry(retry);
                    let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
                    let store = builder.with_config(timeout, LONGEST).build().map_err(refused)?;
                    (Arc::new(store), Location::parse(key))
                }
                "gs" => {
                    let builder = GoogleCloudStorageBuilder::from_env().with_url(&root).with_retry(retry);
                    let timeout = GoogleConfigKey::Client(ClientConfigKey::Timeout);
                    let store = builder.with_config(timeout, LONGEST).build().map_err(refused)?;
                    (Arc::new(store), Location::parse(key))
                }
                "https" | "http" => {
                    if key.contains(['?', '#']) {
                        return Err(wrong("expected an address without ? and #"));
                    }
                    let options = ClientOptions::new().with_allow_http(scheme == "http").with_timeout_disabled();
                    let builder = HttpBuilder::new().with_url(&root).with_client_options(options).with_retry(retry);
                    (Arc::new(builder.build().map_err(refused)?), Location::from_url_path(key))
                }
                _ => return Err(wrong(known)),
            };
            let location = location.map_err(|error| unusable(&error))?;
            Ok(Object { shown: path.to_owned(), root, store, location })
        }

        /// A store's refusal in our words.
        fn wrong(&self, error: &StoreError) -> Error {
            // Of listings the library tells them by their messages alone.
            let text = one_line(error);
            let refused = ["status code: 401 ", "status code: 403 "].iter().any(|status| text.contains(status));
            match error {
                StoreError::Generic { .. } if refused => Error::file(&self.shown, REFUSED),
                StoreError::NotFound { .. } => {
                    Error::file(&self.shown, "expected an object, and the store has none there")
                }
                StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                    Error::file(&self.shown, REFUSED)
                }
                StoreError::Precondition { .. } => Error::file(&self.shown, CHANGED),
                _ => Error::io(&self.shown)(IoError::other(text)),
            }
        }

        fn input(&self, meta: ObjectMeta) -> Input {
            let version = meta.e_tag.unwrap_or_else(|| meta.last_modified.to_rfc3339());
            Input { path: format!("{}{}", self.root, meta.location).into(), size: meta.size, version }
        }

        /// What the store knows of the object.
        fn head(&self) -> Result<ObjectMeta, StoreError> {
            wait(self.store.head(&self.location)).unwrap_or_else(|error| Err(network(error)))
        }

        /// A stream of some of its bytes.
        fn stream(&self, meta: ObjectMeta, range: Range<u64>) -> Stream {
            let (object, since) = (self.clone(), range.start);
            Stream { object, meta, range, stream: None, chunk: Bytes::new(), failures: 0, since }
        }
    }

    const REFUSED: &str = "expected to be let in, and the store refuses to show it to these credentials";
    const CHANGED: &str = "was written again while it was read";

    fn network(error: IoError) -> StoreError {
        StoreError::Generic { store: "network", source: Box::new(error) }
    }

    fn one_line(error: &dyn std::fmt::Display) -> String {
        error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The objects that an address names: itself, or all in a folder, in the order of their names. Web servers have no
    /// folders.
    ///
    /// # Errors
    /// Where the address is none, the store has nothing there or refuses, or the network fails.
    pub fn list(path: &Path) -> Result<Vec<Input>> {
        let object = Object::new(path)?;
        let is_folder = object.location.as_ref().is_empty() || path.to_string_lossy().ends_with('/');
        let web = object.root.starts_with("http");
        if web && is_folder {
            return Err(Error::file(path, "expected the address of a file: web servers do not list folders"));
        }
        if !is_folder {
            match object.head() {
                Ok(meta) => return Ok(vec![object.input(meta)]),
                Err(StoreError::NotFound { .. }) if !web => {}
                Err(error) => return Err(object.wrong(&error)),
            }
        }
        let prefix = Some(&object.location).filter(|location| !location.as_ref().is_empty());
        let found: Result<Vec<ObjectMeta>, StoreError> =
            wait(object.store.list(prefix).try_collect()).unwrap_or_else(|error| Err(network(error)));
        let mut found = found.map_err(|error| object.wrong(&error))?;
        found.retain(|meta| {
            let mut below = meta.location.prefix_match(&object.location).into_iter().flatten();
            !below.any(|part| is_hidden(part.as_ref()))
        });
        // What consoles make to show an empty folder.
        found.retain(|meta| meta.size > 0 || meta.location != object.location);
        if found.is_empty() {
            return Err(Error::file(path, "expected an object, or a folder with some, and the store has none there"));
        }
        found.sort_by(|one, other| one.location.cmp(&other.location));
        Ok(found.into_iter().map(|meta| object.input(meta)).collect())
    }

    /// The bytes of an object, in order.
    ///
    /// # Errors
    /// As [`list`].
    pub fn read(path: &Path) -> Result<Box<dyn Read>> {
        let object = Object::new(path)?;
        let meta = object.head().map_err(|error| object.wrong(&error))?;
        let all = 0..meta.size;
        Ok(Box::new(object.stream(meta, all)))
    }

    /// An object that is being read.
    pub struct Stream {
        object: Object,
        meta: ObjectMeta,
        /// The bytes that have not come yet.
        range: Range<u64>,
        stream: Option<BoxStream<'static, object_store::Result<Bytes>>>,
        /// What came and was not read yet.
        chunk: Bytes,
        /// Connections that ended early.
        failures: u32,
        /// The position after the last of them.
        since: u64,
    }

    impl Stream {
        /// Asks for the rest.
        fn connect(&mut self) -> std::io::Result<Result<(), StoreError>> {
            // Not every server has ranges; all has no need of one.
            let range = (self.range != (0..self.meta.size)).then(|| GetRange::Bounded(self.range.clone()));
            let options = GetOptions { range, if_match: self.meta.e_tag.clone(), ..GetOptions::default() };
            let found = match wait(self.object.store.get_opts(&self.object.location, options))? {
                Ok(found) => found,
                Err(error) => return Ok(Err(error)),
            };
            let same = match (&found.meta.e_tag, &self.meta.e_tag) {
                (Some(now), Some(then)) => now == then,
                _ => found.meta.last_modified == self.meta.last_modified,
            };
            if !same || found.meta.size != self.meta.size {
                return Err(IoError::other(CHANGED));
            }
            self.stream = Some(found.into_stream());
            Ok(Ok(()))
        }

        /// Counts a connection that ended early, and waits before the next one.
        fn failed(&mut self, why: &str) -> std::io::Result<()> {
            self.stream = None;
            self.failures = if self.range.start >= self.since + PROGRESS { 1 } else { self.failures + 1 };
            self.since = self.range.start;
            if self.failures > ATTEMPTS {
                let (came, size) = (self.range.start, self.meta.size);
                let what = format!("the connection ends after {came} of {size} bytes, {ATTEMPTS} times again: {why}");
                return Err(IoError::new(ErrorKind::UnexpectedEof, what));
            }
            std::thread::sleep(Duration::from_millis(100 << self.failures));
            Ok(())
        }
    }

    impl Read for Stream {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            while self.chunk.is_empty() && !self.range.is_empty() {
                let Some(stream) = &mut self.stream else {
                    match self.connect()? {
                        Ok(()) => {}
                        Err(
                            error @ (StoreError::NotFound { .. }
                            | StoreError::PermissionDenied { .. }
                            | StoreError::Unauthenticated { .. }
                            | StoreError::Precondition { .. }),
                        ) => {
                            let what = match self.object.wrong(&error) {
                                Error::File { what, .. } => what,
                                other => other.to_string(),
                            };
                            return Err(IoError::other(what));
                        }
                        Err(error) => self.failed(&one_line(&error))?,
                    }
                    continue;
                };
                match wait(async { tokio::time::timeout(STALLED, stream.next()).await })? {
                    Ok(Some(Ok(chunk))) => {
                        self.range.start += chunk.len() as u64;
                        self.chunk = chunk;
                        if self.range.start > self.range.end {
                            return Err(IoError::other("the store gives more bytes than it says"));
                        }
                    }
                    Ok(Some(Err(error))) => self.failed(&one_line(&error))?,
                    Ok(None) => self.failed("nothing more came")?,
                    Err(_) => self.failed("nothing came for a minute")?,
                }
            }
            let count = buffer.len().min(self.chunk.len());
            buffer[..count].copy_from_slice(&self.chunk.split_to(count));
            Ok(count)
        }
    }

    /// An object of which ranges are read, as Parquet needs them.
    #[cfg(feature = "parquet")]
    pub struct Ranged {
        object: Object,
        meta: ObjectMeta,
    }

    #[cfg(feature = "parquet")]
    impl Ranged {
        /// Opens it.
        ///
        /// # Errors
        /// As [`list`].
        pub fn open(path: &Path) -> Result<Ranged> {
            let object = Object::new(path)?;
            let meta = object.head().map_err(|error| object.wrong(&error))?;
            Ok(Ranged { object, meta })
        }
    }

    #[cfg(feature = "parquet")]
    impl parquet::file::reader::Length for Ranged {
        fn len(&self) -> u64 {
            self.meta.size
        }
    }

    #[cfg(feature = "parquet")]
    impl parquet::file::reader::ChunkReader for Ranged {
        type T = Stream;

        fn get_read(&self, start: u64) -> parquet::errors::Result<Stream> {
            Ok(self.object.stream(self.meta.clone(), start..self.meta.size))
        }

        fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
            let mut bytes = Vec::new();
            let end = start.saturating_add(length as u64);
            if end > self.meta.size {
                let what = format!("expected {length} bytes from {start} on, found an object of {}", self.meta.size);
                return Err(parquet::errors::ParquetError::EOF(what));
            }
            self.object.stream(self.meta.clone(), start..end).read_to_end(&mut bytes)?;
            Ok(bytes.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        for (path, is) in
            [("s3://a/b", true), ("http://a/b", true), ("a/b", false), ("/a:/b", false), ("file:///a", true)]
        {
            assert_eq!(is_address(Path::new(path)), is, "{path}");
        }
    }

    #[test]
    #[cfg(feature = "stores")]
    fn what_is_no_address_is_named() {
        for (path, expected) in [
            ("file:///a", "file:///a: expected s3://BUCKET/KEY, gs://BUCKET/KEY"),
            ("az://a/b", "az://a/b: expected s3://"),
            ("s3://", "s3://: expected s3://"),
            ("http://a/b?c=d", "expected an address without ? and #"),
            ("http://a/", "web servers do not list folders"),
            ("s3://a/b//c", "s3://a/b//c: expected an address: "),
        ] {
            let message = list(Path::new(path)).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    #[cfg(not(feature = "stores"))]
    fn without_the_feature_addresses_are_refused() {
        let message = list(Path::new("s3://a/b")).unwrap_err().to_string();
        assert!(message.contains("s3://a/b: expected a file of this machine, since this t5-train was built without"));
    }
}
