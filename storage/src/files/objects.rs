//! An [`ObjectStore`] over [`Files`].
//!
//! Segments and manifests are objects, so that a deployment can keep them in a bucket. On a local disk this adapter is
//! used instead of `object_store`'s own `LocalFileSystem`, which never syncs: here a successful put survives a power
//! cut. Only what the store needs is offered (whole immutable objects, created once); the rest answers
//! `NotImplemented` instead of pretending.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::{FileInfo, Files, TEMPORARY_SUFFIX, parent, publish_file};

/// Immutable objects kept as files.
#[derive(Debug, Clone)]
pub(crate) struct FileObjects {
    files: Arc<dyn Files>,
}

impl FileObjects {
    pub(crate) fn new(files: Arc<dyn Files>) -> Self {
        FileObjects { files }
    }
}

impl fmt::Display for FileObjects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FileObjects({:?})", self.files)
    }
}

fn convert(path: &str, error: io::Error) -> Error {
    let path = path.to_string();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: Box::new(error) },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: Box::new(error) },
        _ => Error::Generic { store: "FileObjects", source: Box::new(error) },
    }
}

fn refuse<T>(operation: &str) -> Result<T> {
    Err(Error::NotImplemented { operation: operation.into(), implementer: "FileObjects".into() })
}

fn object_meta(info: FileInfo) -> ObjectMeta {
    // Objects are immutable and named once, so the time of writing decides nothing and is not kept.
    ObjectMeta {
        location: Path::from(info.path),
        last_modified: SystemTime::UNIX_EPOCH.into(),
        size: info.bytes,
        e_tag: None,
        version: None,
    }
}

/// File calls block, so they run where blocking is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?
}

#[async_trait]
impl ObjectStore for FileObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if options.mode != PutMode::Create {
            return refuse("put over an existing object");
        }
        let (files, path) = (Arc::clone(&self.files), location.to_string());
        blocking(move || {
            let chunks: Vec<&[u8]> = payload.iter().map(Bytes::as_ref).collect();
            publish_file(files.as_ref(), &path, &chunks).map_err(|error| convert(&path, error))?;
            Ok(PutResult { e_tag: None, version: None })
        })
        .await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        refuse("multipart upload")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (files, path) = (Arc::clone(&self.files), location.to_string());
        blocking(move || {
            let size = files.size(&path).map_err(|error| convert(&path, error))?;
            let meta = object_meta(FileInfo { path: path.clone(), bytes: size });
            options.check_preconditions(&meta)?;
            let range = match &options.range {
                Some(range) => range
                    .as_range(size)
                    .map_err(|error| Error::Generic { store: "FileObjects", source: Box::new(error) })?,
                None => 0..size,
            };
            let wanted = if options.head { 0..0 } else { range.clone() };
            let data = files.read_range(&path, wanted).map_err(|error| convert(&path, error))?;
            let payload = GetResultPayload::Stream(stream::once(async move { Ok(Bytes::from(data)) }).boxed());
            Ok(GetResult { payload, meta, range, attributes: Default::default() })
        })
        .await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (files, path, ranges) = (Arc::clone(&self.files), location.to_string(), ranges.to_vec());
        blocking(move || {
            let read = |range: Range<u64>| files.read_range(&path, range).map(Bytes::from);
            ranges.into_iter().map(read).collect::<io::Result<_>>().map_err(|error| convert(&path, error))
        })
        .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let files = Arc::clone(&self.files);
        locations
            .then(move |location| {
                let files = Arc::clone(&files);
                async move {
                    let location = location?;
                    let path = location.to_string();
                    blocking(move || {
                        files
                            .remove(&path)
                            .and_then(|()| files.sync_directory(parent(&path)))
                            .map_err(|error| convert(&path, error))
                    })
                    .await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (files, prefix) = (Arc::clone(&self.files), prefix.map(Path::to_string).unwrap_or_default());
        let listing = blocking(move || files.list(&prefix).map_err(|error| convert(&prefix, error)));
        stream::once(listing)
            .flat_map(|listing| {
                let metas: Vec<Result<ObjectMeta>> = match listing {
                    Ok(infos) => {
                        let complete = infos.into_iter().filter(|info| !info.path.ends_with(TEMPORARY_SUFFIX));
                        complete.map(|info| Ok(object_meta(info))).collect()
                    }
                    Err(error) => vec![Err(error)],
                };
                stream::iter(metas)
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        refuse("listing by folder")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        refuse("copy")
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::files::MemoryFiles;

    #[tokio::test]
    async fn an_object_is_created_once_and_survives_a_power_cut() {
        let disk = MemoryFiles::new();
        let objects = FileObjects::new(Arc::new(disk.clone()));
        let path = Path::from("segments/1.parquet");
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        objects.put_opts(&path, PutPayload::from_static(b"columns"), create.clone()).await.unwrap();
        let again = objects.put_opts(&path, PutPayload::from_static(b"others"), create).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));

        let found = FileObjects::new(Arc::new(disk.after_power_cut()));
        assert_eq!(found.get_range(&path, 2..5).await.unwrap().as_ref(), b"lum");
        assert_eq!(found.head(&path).await.unwrap().size, 7);
        let listed: Vec<_> = found.list(Some(&Path::from("segments"))).collect().await;
        assert_eq!(listed.len(), 1);
        found.delete(&path).await.unwrap();
        assert!(matches!(found.get(&path).await, Err(Error::NotFound { .. })));
    }
}
