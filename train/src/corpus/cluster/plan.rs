//! Plans: a source of numbers of parts, our node, and for repeats two exchanges and two sorts of DataFusion, which
//! spill to disk.
//!
//! ```text
//! each:      parts -> step
//! repeated:  parts -> entries -> exchange by hash -> sort -> all but the first of a hash
//!                  -> exchange by part -> sort -> a file for each part
//! ```

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, RecordBatch, StringArray,
    UInt32Array, UInt64Array,
};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::{RecordBatchReceiverStreamBuilder, RecordBatchStreamAdapter};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use crate::corpus::engine::{Repeat, Step};
use crate::corpus::job::{Job, Progress};
use crate::corpus::options::Options;
use crate::corpus::repeated::{Entry, PLACE, pair, part_file};
use crate::corpus::rules::decisive;
use crate::files::{hex, read_json, replace, write_json};
use crate::{Error, Result};

/// Exchanges divide by at most so much.
const MOST: usize = 256;

/// What executors have to know of a job: a file in the shared folder.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    version: String,
    options: Options,
    parts: Vec<(PathBuf, String)>,
    made_of: String,
    rules: String,
    vocabulary: String,
}

/// An order as nodes name it: its file, and the job that it has to be about. The same files and rules may be asked for
/// again with another vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Named {
    path: PathBuf,
    made_of: String,
    vocabulary: String,
}

impl Order {
    /// Writes it, and gives its name.
    pub fn write(job: &Job) -> Result<Named> {
        let path = job.work.join("order.json");
        let (made_of, vocabulary) = (job.made_of.clone(), job.fingerprint());
        let order = Order {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            options: job.options.clone(),
            parts: job.parts.clone(),
            made_of: made_of.clone(),
            rules: hex(&decisive(&job.options)?.finalize()),
            vocabulary: vocabulary.clone(),
        };
        write_json(&path, &order)?;
        Ok(Named { path, made_of, vocabulary })
    }

    /// The job that it is about, if this machine has the same rules.
    fn job(Named { path, made_of, vocabulary }: &Named) -> Result<Job> {
        let wrong = |what: &str| Error::file(path, what);
        let order: Option<Order> = read_json(path)?;
        let order = order.ok_or_else(|| wrong("expected the folder of the job, which every machine has to see"))?;
        if order.made_of != *made_of || order.vocabulary != *vocabulary {
            return Err(wrong("expected the job that was begun, found another one, which took its place"));
        }
        if order.version != env!("CARGO_PKG_VERSION") {
            return Err(wrong("expected an executor of the version that began the job"));
        }
        if hex(&decisive(&order.options)?.finalize()) != order.rules {
            return Err(wrong("expected the lists of sites, addresses and words that the job was begun with"));
        }
        let job = Job::of(&order.options, order.parts, order.made_of)?;
        if job.fingerprint() != *vocabulary {
            return Err(wrong("expected the vocabulary that the job was begun with"));
        }
        Ok(job)
    }
}

/// The jobs that this executor works for.
static JOBS: LazyLock<Mutex<HashMap<Named, Arc<Job>>>> = LazyLock::new(Mutex::default);

fn job(order: &Named) -> Result<Arc<Job>> {
    let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(job) = jobs.get(order) {
        return Ok(job.clone());
    }
    let job = Arc::new(Order::job(order)?);
    if jobs.len() >= 4 {
        jobs.clear();
    }
    jobs.insert(order.clone(), job.clone());
    Ok(job)
}

/// What a node does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Work {
    /// Does a step for each number of a part, and gives its [`Outcome`].
    Step(Step),
    /// Gives the entries of each part; the folder has what was found before.
    Entries(Repeat, PathBuf),
    /// Of entries in order gives those whose hash the one before has.
    Repeated,
    /// Writes what it is given in order into a file for each part.
    Keep(PathBuf),
}

/// The node of ours.
#[derive(Debug)]
struct Node {
    order: Named,
    work: Work,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

/// What became of a part.
#[derive(Debug)]
pub struct Outcome {
    pub part: u32,
    pub pages: u64,
    pub bytes: u64,
    /// What is wrong with it, wherever it is worked on.
    pub error: Option<String>,
}

fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    let field = |(name, kind, nullable): &(&str, DataType, bool)| Field::new(*name, kind.clone(), *nullable);
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

static PARTS: LazyLock<SchemaRef> = LazyLock::new(|| schema(&[("part", DataType::UInt32, false)]));
static OUTCOMES: LazyLock<SchemaRef> = LazyLock::new(|| {
    let numbers = [("part", DataType::UInt32, false), ("pages", DataType::UInt64, false)];
    let [part, pages] = numbers;
    schema(&[part, pages, ("bytes", DataType::UInt64, false), ("error", DataType::Utf8, true)])
});
/// The fields of an [`Entry`], in its order.
static ENTRIES: LazyLock<SchemaRef> = LazyLock::new(|| {
    let number = |name| (name, DataType::UInt32, false);
    let (hash, place) = (DataType::FixedSizeBinary(16), DataType::FixedSizeBinary(PLACE as i32));
    schema(&[("hash", hash, false), ("place", place, false), number("part"), number("row"), number("at")])
});
static GONE: LazyLock<SchemaRef> = LazyLock::new(|| {
    let number = |name| (name, DataType::UInt32, false);
    schema(&[number("part"), number("row"), number("at")])
});

impl Work {
    fn schema(&self) -> SchemaRef {
        match self {
            Work::Step(_) | Work::Keep(_) => OUTCOMES.clone(),
            Work::Entries(..) => ENTRIES.clone(),
            Work::Repeated => GONE.clone(),
        }
    }

    /// The columns by which its input is in order: all.
    fn order(&self) -> Option<&SchemaRef> {
        match self {
            Work::Step(_) | Work::Entries(..) => None,
            Work::Repeated => Some(&ENTRIES),
            Work::Keep(_) => Some(&GONE),
        }
    }
}

fn column(schema: &Schema, name: &str) -> PlanResult<Arc<dyn PhysicalExpr>> {
    Ok(Arc::new(Column::new(name, schema.index_of(name)?)))
}

fn ordering(schema: &Schema) -> Option<LexOrdering> {
    let columns = schema.fields().iter().enumerate().map(|(i, field)| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), i));
        PhysicalSortExpr::new_default(column)
    });
    LexOrdering::new(columns)
}

impl Node {
    fn new(order: Named, work: Work, input: Arc<dyn ExecutionPlan>) -> Arc<Node> {
        let partitions = input.properties().output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(work.schema()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Arc::new(Node { order, work, input, properties: Arc::new(properties) })
    }
}

impl DisplayAs for Node {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "CorpusExec: {:?}", self.work)
    }
}

impl ExecutionPlan for Node {
    fn name(&self) -> &str {
        "CorpusExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.work.order().and_then(|schema| ordering(schema)).map(OrderingRequirements::from)]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let input = one(children)?;
        Ok(Node::new(self.order.clone(), self.work.clone(), input))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let order = self.order.clone();
        Ok(match self.work.clone() {
            Work::Step(step) => for_each_part(self.work.schema(), input, move |part, send| {
                let progress = Progress::default();
                let done = job(&order).and_then(|job| job.step(step, part as usize, &progress));
                let error = match done {
                    // Another machine, or another time, may do better; what is wrong with a file stays so.
                    Err(error) if is_of_the_system(&error) => return Err(failed(&error)),
                    Err(error) => Some(error.to_string()),
                    Ok(()) => None,
                };
                let [pages, bytes] = [progress.pages, progress.bytes].map(|count| count.into_inner());
                send(Outcome { part, pages, bytes, error }.batch()?)
            }),
            Work::Entries(repeat, gone) => for_each_part(self.work.schema(), input, move |part, send| {
                let job = job(&order).map_err(|error| failed(&error))?;
                let mut unsent = None;
                let each = |entries: &[Entry]| {
                    let sent = batch_of(entries).and_then(&mut *send);
                    sent.map_err(|error| {
                        unsent = Some(error);
                        Error::Invalid("the exchange ended".into())
                    })
                };
                let done = job.for_each_entries(repeat, part as usize, &gone, each);
                match (done, unsent) {
                    (_, Some(error)) => Err(error),
                    (Err(error), None) => Err(failed(&error)),
                    (Ok(()), None) => Ok(()),
                }
            }),
            Work::Repeated => {
                let mut last: Option<Vec<u8>> = None;
                let stream = input.map(move |batch| all_but_first(&batch?, &mut last));
                Box::pin(RecordBatchStreamAdapter::new(self.work.schema(), stream))
            }
            Work::Keep(folder) => keep(self.work.schema(), input, folder),
        })
    }
}

fn one<T>(values: Vec<T>) -> PlanResult<T> {
    let [value] = <[T; 1]>::try_from(values)
        .map_err(|values| DataFusionError::Internal(format!("expected one input, found {}", values.len())))?;
    Ok(value)
}

/// Calls `work` for every number of a part that comes in, on a thread that may wait; it sends what it gives.
fn for_each_part(
    schema: SchemaRef,
    mut input: SendableRecordBatchStream,
    work: impl Fn(u32, &mut dyn FnMut(RecordBatch) -> PlanResult<()>) -> PlanResult<()> + Send + Sync + 'static,
) -> SendableRecordBatchStream {
    let mut builder = RecordBatchReceiverStreamBuilder::new(schema, 2);
    let (sender, work) = (builder.tx(), Arc::new(work));
    builder.spawn(async move {
        while let Some(batch) = input.next().await {
            for &part in batch?.column(0).as_primitive::<UInt32Type>().values() {
                let (sender, work) = (sender.clone(), work.clone());
                let done = tokio::task::spawn_blocking(move || {
                    let mut send = |batch| {
                        let cancelled = |_| DataFusionError::Execution("the task was cancelled".into());
                        sender.blocking_send(Ok(batch)).map_err(cancelled)
                    };
                    work(part, &mut send)
                });
                done.await.map_err(|error| DataFusionError::Execution(error.to_string()))??;
            }
        }
        Ok(())
    });
    builder.build()
}

fn batch_of(entries: &[Entry]) -> PlanResult<RecordBatch> {
    let mut hashes = FixedSizeBinaryBuilder::with_capacity(entries.len(), 16);
    let mut places = FixedSizeBinaryBuilder::with_capacity(entries.len(), PLACE as i32);
    for entry in entries {
        hashes.append_value(entry.hash)?;
        places.append_value(entry.place)?;
    }
    let numbers =
        |of: fn(&Entry) -> u32| -> ArrayRef { Arc::new(UInt32Array::from_iter_values(entries.iter().map(of))) };
    let numbers = [numbers(|entry| entry.part), numbers(|entry| entry.row), numbers(|entry| entry.at)];
    let [part, row, at] = numbers;
    let columns: Vec<ArrayRef> = vec![Arc::new(hashes.finish()), Arc::new(places.finish()), part, row, at];
    Ok(RecordBatch::try_new(ENTRIES.clone(), columns)?)
}

/// The entries whose hash the one before has; `last` is the hash before the batch, and becomes that at its end.
fn all_but_first(batch: &RecordBatch, last: &mut Option<Vec<u8>>) -> PlanResult<RecordBatch> {
    let hashes: &FixedSizeBinaryArray = batch.column(0).as_fixed_size_binary();
    let mut before = last.as_deref();
    let repeated: BooleanArray = (0..hashes.len())
        .map(|i| {
            let hash = Some(hashes.value(i));
            Some(std::mem::replace(&mut before, hash) == hash)
        })
        .collect();
    let found = filter_record_batch(&batch.project(&[2, 3, 4])?, &repeated)?;
    if !hashes.is_empty() {
        *last = Some(hashes.value(hashes.len() - 1).to_vec());
    }
    Ok(RecordBatch::try_new(GONE.clone(), found.columns().to_vec())?)
}

/// Writes a file for each part: its rows come one after the other.
fn keep(schema: SchemaRef, mut input: SendableRecordBatchStream, folder: PathBuf) -> SendableRecordBatchStream {
    let mut builder = RecordBatchReceiverStreamBuilder::new(schema, 2);
    let sender = builder.tx();
    builder.spawn(async move {
        let (mut part, mut bytes) = (None, Vec::new());
        loop {
            let batch = input.next().await.transpose()?;
            let numbers = batch.iter().flat_map(|batch| {
                let numbers = [0, 1, 2].map(|i| batch.column(i).as_primitive::<UInt32Type>().values());
                (0..batch.num_rows()).map(move |i| numbers.map(|numbers| numbers[i]))
            });
            // At the end comes no part, and the last is whole.
            let end = if batch.is_none() { Some([0; 3]) } else { None };
            for [of, row, at] in numbers.chain(end) {
                let of = batch.is_some().then_some(of);
                if of != part {
                    if let Some(part) = part {
                        let written = replace(&part_file(&folder, part), &bytes);
                        written.map_err(|error| failed(&error))?;
                        let rows = bytes.len() as u64 / 8;
                        let outcome = Outcome { part, pages: rows, bytes: 0, error: None };
                        if sender.send(outcome.batch()).await.is_err() {
                            return Ok(());
                        }
                    }
                    bytes.clear();
                    part = of;
                }
                bytes.extend(pair(row, at));
            }
            if batch.is_none() {
                return Ok(());
            }
        }
    });
    builder.build()
}

impl Outcome {
    fn batch(self) -> PlanResult<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(vec![self.part])),
            Arc::new(UInt64Array::from(vec![self.pages])),
            Arc::new(UInt64Array::from(vec![self.bytes])),
            Arc::new(StringArray::from(vec![self.error])),
        ];
        Ok(RecordBatch::try_new(OUTCOMES.clone(), columns)?)
    }
}

/// The outcomes of a batch.
pub fn outcomes(batch: &RecordBatch) -> Result<Vec<Outcome>> {
    if batch.schema().fields() != OUTCOMES.fields() {
        return Err(Error::Invalid(format!("expected outcomes of parts, found {:?}", batch.schema().fields())));
    }
    let parts = batch.column(0).as_primitive::<UInt32Type>().values();
    let [pages, bytes] = [1, 2].map(|i| batch.column(i).as_primitive::<UInt64Type>().values());
    let errors = batch.column(3).as_string::<i32>();
    let outcome = |i: usize| {
        let error = errors.is_valid(i).then(|| errors.value(i).to_owned());
        Outcome { part: parts[i], pages: pages[i], bytes: bytes[i], error }
    };
    Ok((0..batch.num_rows()).map(outcome).collect())
}

/// Around what we say in the messages of the engine, which quotes them several times.
const SAID: [&str; 2] = ["<t5-train>", "</t5-train>"];

fn is_of_the_system(error: &Error) -> bool {
    matches!(error, Error::Io { .. } | Error::Model(t5_runtime::Error::Io { .. }))
}

/// An error as the engine passes it on. Those of the system are tried again, elsewhere.
fn failed(error: &Error) -> DataFusionError {
    let text = format!("{}{error}{}", SAID[0], SAID[1]);
    if is_of_the_system(error) {
        DataFusionError::IoError(std::io::Error::other(text))
    } else {
        DataFusionError::Execution(text)
    }
}

/// What we said in a message of the engine.
pub fn said(message: &str) -> Option<String> {
    let (_, after) = message.split_once(SAID[0])?;
    let (said, _) = after.split_once(SAID[1])?;
    Some(said.replace("\\n", "\n").replace('\\', ""))
}

/// A source of all numbers of parts, each by itself.
fn parts(job: &Job) -> PlanResult<Arc<dyn ExecutionPlan>> {
    let part = |part: u32| {
        let numbers: ArrayRef = Arc::new(UInt32Array::from(vec![part]));
        Ok(vec![RecordBatch::try_new(PARTS.clone(), vec![numbers])?])
    };
    let parts: PlanResult<Vec<Vec<RecordBatch>>> = (0..job.parts.len() as u32).map(part).collect();
    Ok(MemorySourceConfig::try_new_exec(&parts?, PARTS.clone(), None)?)
}

fn planned<T>(plan: PlanResult<T>) -> Result<T> {
    plan.map_err(|error| Error::Invalid(format!("plan: {error}")))
}

/// A step for every part.
pub fn each(job: &Job, order: Named, step: Step) -> Result<Arc<dyn ExecutionPlan>> {
    let input = planned(parts(job))?;
    Ok(Node::new(order, Work::Step(step), input))
}

/// What is elsewhere, too, of all parts, into the folder for it below `gone`.
pub fn repeated(job: &Job, order: Named, repeat: Repeat, gone: &Path) -> Result<Arc<dyn ExecutionPlan>> {
    let node = |work, input| Node::new(order.clone(), work, input);
    let exchanged = |input: Arc<dyn ExecutionPlan>, by: &str| -> PlanResult<Arc<dyn ExecutionPlan>> {
        let schema = input.schema();
        let division = Partitioning::Hash(vec![column(&schema, by)?], job.parts.len().clamp(1, MOST));
        let exchange = Arc::new(RepartitionExec::try_new(input, division)?);
        let ordering = ordering(&schema).ok_or_else(|| DataFusionError::Internal("no columns".into()))?;
        Ok(Arc::new(SortExec::new(ordering, exchange).with_preserve_partitioning(true)))
    };
    let entries = node(Work::Entries(repeat, gone.to_owned()), planned(parts(job))?);
    let repeated = node(Work::Repeated, planned(exchanged(entries, "hash"))?);
    Ok(node(Work::Keep(gone.join(repeat.folder())), planned(exchanged(repeated, "part"))?))
}

/// Our node between machines, and Ballista's own.
#[derive(Debug, Default)]
pub struct Codec {
    ballista: BallistaPhysicalExtensionCodec,
}

/// What our node begins with, and no message of Ballista's: as a field's number and kind it is none.
const MARK: &[u8] = b"\x07t5-train";

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let Some(ours) = bytes.strip_prefix(MARK) else {
            return self.ballista.try_decode(bytes, inputs, context, converter);
        };
        let (order, work) =
            serde_json::from_slice(ours).map_err(|error| DataFusionError::Execution(error.to_string()))?;
        Ok(Node::new(order, work, one(inputs.to_vec())?))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> PlanResult<()> {
        let Some(ours) = node.downcast_ref::<Node>() else {
            return self.ballista.try_encode(node, bytes, converter);
        };
        bytes.extend(MARK);
        serde_json::to_writer(bytes, &(&ours.order, &ours.work))
            .map_err(|error| DataFusionError::Execution(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::create_folder;

    #[test]
    fn of_equal_hashes_all_but_the_first_are_given_over_batches() {
        let entry = |hash: u8, row: u32| Entry { hash: [hash; 16], place: [0; PLACE], part: 1, row, at: row + 10 };
        let entries: Vec<Entry> =
            [1, 1, 2, 3, 3, 3, 4].into_iter().zip(0..).map(|(hash, row)| entry(hash, row)).collect();
        for size in 1..8 {
            let mut last = None;
            let mut rows = Vec::new();
            for some in entries.chunks(size) {
                let found = all_but_first(&batch_of(some).unwrap(), &mut last).unwrap();
                rows.extend_from_slice(found.column(1).as_primitive::<UInt32Type>().values());
                assert_eq!(found.schema(), GONE.clone());
            }
            assert_eq!(rows, [1, 4, 5], "{size}");
        }
        assert_eq!(all_but_first(&batch_of(&[]).unwrap(), &mut None).unwrap().num_rows(), 0);
    }

    #[test]
    fn an_order_with_another_vocabulary_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("input = [\"a\"]\noutput = {:?}", dir.path());
        let options = Options::parse("c.toml", &text, &[], 0).unwrap();
        create_folder(&dir.path().join("work")).unwrap();
        let written = |vocabulary: &str| {
            let options = Options { vocabulary: vocabulary.into(), ..options.clone() };
            let ordered = Job::of(&options, Vec::new(), "0".repeat(32)).unwrap();
            let order = Order::write(&ordered).unwrap();
            assert_eq!(job(&order).unwrap().fingerprint(), ordered.fingerprint());
            order
        };
        let texts = written("");
        written("bytes");
        let message = Order::job(&texts).err().unwrap().to_string();
        assert!(message.ends_with("expected the job that was begun, found another one, which took its place"));
    }

    #[test]
    fn what_we_say_is_found_in_what_the_engine_says() {
        let error = failed(&Error::file("a \"b\"", "expected more"));
        let quoted = format!("Job 1 failed: {:?}", format!("{error:?}"));
        assert_eq!(said(&quoted).unwrap(), "a \"b\": expected more");
        assert!(matches!(failed(&Error::io("a")(std::io::Error::other("full"))), DataFusionError::IoError(_)));
        assert_eq!(said("connection refused"), None);
    }
}
