//! `espalier serve`: starts the components of the server and shuts them down gracefully.

use super::error::{CliError, CliResult};
use super::{logging, open_files};
use crate::config::{Config, Role, Secret, Settings};
use crate::http::{
    self, Access, AccessSync, AdapterImports, AppState, Authenticator, ConcurrencyLimits, JobMetrics, JwtVerifier,
    Metrics, TokenSupport, UsageCounters,
};
use crate::serving::InferenceService;
use crate::store::blobs::{BlobStore, DataDir};
use crate::store::{self, Store, expiry, retention};
use crate::worker::{self, IdleTimer, WorkerContext, Workers, webhooks};
use espalier_core::error::{Context, Result};
use espalier_core::model::{BaseModel, hub};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

/// Part of the shutdown timeout that is left for responses when requests in flight are ended.
const FINAL_RESPONSE_TIME: Duration = Duration::from_millis(500);
/// Time to wait for blocking tasks when the runtime shuts down.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(200);

/// Opened resources of the server.
struct Components {
    store: Arc<dyn Store>,
    base: Arc<BaseModel>,
    blobs: Arc<BlobStore>,
    settings: Settings,
    /// Metrics of all modules.
    metrics: Metrics,
}

pub fn run(config: &Config) -> CliResult {
    let traces = logging::start(config)?;
    let mut settings = config.resolve()?;
    let max_connections = open_files::max_connections(settings.http.max_connections, open_files::raise_limit())?;
    let listener = bind(settings.listen)?;
    let runtime = Runtime::new().map_err(|error| CliError::failed(format!("threads cannot be started: {error}")))?;
    let base = load_base_model(&settings)?;
    let data_dir = Arc::new(DataDir::open(&settings.data_dir)?);
    let result = runtime.block_on(async {
        let store = open_store(&settings.database_url, &data_dir).await?;
        let mut metrics = Metrics::default();
        if let Some(traces) = &traces {
            traces.counters().register(metrics.registry_mut());
        }
        let objects = settings.object_storage.take();
        if let Some(objects) = &objects {
            tracing::info!(url = objects.name(), "blobs are in object storage");
        }
        let blobs = Arc::new(BlobStore::new(data_dir, Arc::clone(&store), objects, settings.blob_cache_bytes));
        serve(Components { store, base, blobs, settings, metrics }, listener, max_connections).await
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    if let Some(traces) = traces {
        traces.shutdown();
    }
    Ok(result?)
}

/// Binds the address; called before the model is loaded, so that a port in use is reported at once.
fn bind(address: SocketAddr) -> CliResult<TcpListener> {
    let bind_error = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => CliError::failed(format!(
            "{address} is in use: stop what listens there (another espalier?), or listen elsewhere with --listen"
        )),
        _ => CliError::failed(format!("cannot listen on {address}: {error}; choose another address with --listen")),
    };
    let listener = TcpListener::bind(address).map_err(bind_error)?;
    listener.set_nonblocking(true).map_err(bind_error)?;
    Ok(listener)
}

/// Finds and loads the base model.
///
/// # Errors
/// `Invalid` if the model does not exist or cannot be loaded.
pub fn load_base_model(settings: &Settings) -> Result<Arc<BaseModel>> {
    let started = Instant::now();
    let located = hub::locate(&settings.model, &settings.hub)?;
    let base = BaseModel::load(
        &located.path,
        &located.name,
        espalier_tensor::create_backend(settings.device, settings.weight_format)?,
    )?;
    let info = base.info();
    tracing::info!(
        name = info.name,
        folder = %located.path.display(),
        fingerprint = info.fingerprint,
        parameters = info.parameters,
        backend = info.backend,
        seconds = started.elapsed().as_secs_f64(),
        "base model loaded"
    );
    Ok(Arc::new(base))
}

/// Connects to the database, and expires the leases of processes that no longer run.
pub async fn open_store(database_url: &Secret, data_dir: &DataDir) -> Result<Arc<dyn Store>> {
    let store = store::connect(database_url.expose()).await?;
    let mut expired_leases = 0;
    for instance in data_dir.stale_instances() {
        expired_leases += store.expire_leases_of_instance(*instance).await?;
    }
    tracing::info!(database = store.backend_name(), instance = %data_dir.instance_id(), expired_leases, "store opened");
    Ok(store)
}

async fn serve(mut components: Components, listener: TcpListener, max_connections: usize) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("listening")?;
    let address = listener.local_addr().context("listening")?;
    let shutdown = CancellationToken::new();
    let mut signals = Signals::install().context("installing signal handlers")?;
    let (store, blobs) = (Arc::clone(&components.store), Arc::clone(&components.blobs));
    let (policy, interval) = (components.settings.retention, components.settings.retention_interval);
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(retention::run(store, blobs, policy, interval)));
    let lifetimes = expiry::Lifetimes {
        idempotency_keys: components.settings.http.idempotency_ttl,
        webhook_deliveries: components.settings.webhooks.keep_deliveries,
    };
    let expiry = expiry::run(Arc::clone(&components.store), lifetimes, interval);
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(expiry));
    let deliverer = webhooks::run(Arc::clone(&components.store), components.settings.webhooks.clone());
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(deliverer));
    let (workers, exit_when_idle) = (start_workers(&mut components), components.settings.worker.exit_when_idle);
    let idle_timer = workers.as_ref().map(Workers::idle_timer);
    let shutdown_timeout = components.settings.shutdown_timeout.saturating_sub(RUNTIME_SHUTDOWN_TIMEOUT);
    let connections = components.settings.http.connections;
    let role = components.settings.role;
    let authenticator = start_authenticator(&components).await?;
    let state = build_state(components, authenticator, shutdown.clone())?;
    let (access_sync, interval) = (state.access_sync.clone(), state.settings.access_refresh_interval);
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(access_sync.clone().run(interval)));
    let serving = state.serving.clone();
    let router = match role {
        Role::All | Role::Api => http::router(state),
        Role::Worker => http::worker_router(state),
    };
    tracing::info!(%address, max_connections, role = role.as_str(), version = env!("CARGO_PKG_VERSION"), "listening");
    let server = http::serve(listener, router, connections, max_connections, shutdown.clone(), shutdown_timeout);
    let mut server = tokio::spawn(server);
    tokio::select! {
        served = &mut server => return served.context("serving")?,
        signal = signals.recv() => {
            serving.refuse_generation();
            tracing::info!(signal, "shutting down; a second signal exits at once");
        }
        () = idle(idle_timer, exit_when_idle) => {
            tracing::info!("shutting down: there was no job for the time of --exit-when-idle");
        }
    }
    signals.exit_on_next();
    let deadline = Instant::now() + shutdown_timeout;
    shutdown.cancel();
    let (served, ()) = tokio::join!(end_requests(server, &serving, deadline), stop_workers(workers, deadline));
    served?;
    if let Err(error) = timeout_at(deadline.into(), access_sync.flush()).await.context("writing the last usage") {
        tracing::warn!(%error, "the usage of the last seconds is lost");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Reads the keys and owners.
async fn start_authenticator(components: &Components) -> Result<Arc<Authenticator>> {
    let settings = &components.settings;
    let keys: Vec<&str> = settings.api_keys.iter().map(Secret::expose).collect();
    let admin_keys: Vec<&str> = settings.admin_keys.iter().map(Secret::expose).collect();
    let tokens = if settings.jwt.is_some() { TokenSupport::OpenIdConnect } else { TokenSupport::None };
    let authenticator = Authenticator::new(&keys, &admin_keys, tokens, settings.http.default_limits)?;
    authenticator.replace(components.store.access_snapshot().await?);
    Ok(Arc::new(authenticator))
}

fn start_workers(components: &mut Components) -> Option<Workers> {
    if components.settings.role == Role::Api {
        return None;
    }
    let metrics = worker::Metrics::default();
    metrics.register(components.metrics.registry_mut());
    Some(Workers::start(WorkerContext {
        base: Arc::clone(&components.base),
        store: Arc::clone(&components.store),
        blobs: Arc::clone(&components.blobs),
        settings: components.settings.worker.clone(),
        metrics,
    }))
}

fn build_state(
    components: Components,
    authenticator: Arc<Authenticator>,
    shutdown: CancellationToken,
) -> Result<AppState> {
    let Components { store, base, blobs, settings, mut metrics } = components;
    let serving = InferenceService::start(Arc::clone(&base), Arc::clone(&store), Arc::clone(&blobs), settings.serving)?;
    serving.register_metrics(metrics.registry_mut());
    blobs.register_metrics(metrics.registry_mut());
    let job_metrics = JobMetrics::new(Arc::clone(&store));
    if authenticator.allows_all() && !settings.listen.ip().is_loopback() {
        tracing::warn!(address = %settings.listen, "no api key is set: every client that reaches this address is accepted");
    }
    let tokens = settings.jwt.map(JwtVerifier::start).transpose()?;
    let usage = Arc::new(UsageCounters::default());
    let access = Access::new(Arc::clone(&authenticator), Some(Arc::clone(&store)), tokens, http::operations());
    let access_sync = AccessSync { authenticator, usage: Arc::clone(&usage), store: Arc::clone(&store) };
    Ok(AppState {
        store,
        base,
        data_dir: Arc::clone(blobs.data_dir()),
        blobs,
        serving,
        concurrency: Arc::new(ConcurrencyLimits::new(&settings.http)),
        settings: Arc::new(http::Settings { training_threads: settings.worker.training.threads, ..settings.http }),
        dataset_settings: Arc::new(settings.data),
        artifact_settings: settings.artifact,
        adapter_imports: Arc::new(AdapterImports { folder: settings.import_folder, hub: settings.hub }),
        access,
        webhooks: Arc::new(settings.webhooks),
        access_sync,
        usage,
        shutdown,
        openapi_yaml: http::openapi_yaml()?.into(),
        metrics: Arc::new(metrics),
        job_metrics,
    })
}

/// Waits until the workers have had no job for the time of `--exit-when-idle`; forever without that setting.
async fn idle(timer: Option<IdleTimer>, limit: Option<Duration>) {
    match timer.zip(limit) {
        Some((timer, limit)) => timer.idle_for(limit).await,
        None => std::future::pending().await,
    }
}

/// Waits for the requests in flight and ends those that are left shortly before the deadline; then ends the threads of
/// serving, as far as they end by the deadline.
async fn end_requests(mut server: JoinHandle<Result<()>>, serving: &InferenceService, deadline: Instant) -> Result<()> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    let end_at = deadline - FINAL_RESPONSE_TIME.min(remaining / 4);
    let served = match timeout_at(end_at.into(), &mut server).await {
        Ok(served) => served,
        Err(_) => {
            tracing::warn!("requests in flight are ended before the shutdown timeout");
            serving.abort_requests();
            server.await
        }
    };
    if timeout_at(deadline.into(), serving.drain()).await.is_err() {
        tracing::debug!("computation in progress is abandoned");
    }
    served.context("serving")?
}

/// Waits for running jobs to write a checkpoint and return to the queue. The lease of a job that takes longer is released at the
/// next start.
async fn stop_workers(workers: Option<Workers>, deadline: Instant) {
    let Some(workers) = workers else { return };
    match timeout_at(deadline.into(), workers.stop()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = %error, "requeuing jobs failed; the next start requeues them"),
        Err(_) => tracing::warn!("jobs did not stop in time; the next start requeues them"),
    }
}

/// SIGTERM and SIGINT: the first requests shutdown, the second exits at once.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Replaces the default handlers, which end the process.
    fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal and returns its name.
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Exits at the next signal. Jobs in progress resume from their checkpoints at the next start.
    fn exit_on_next(mut self) {
        tokio::spawn(async move {
            let signal = self.recv().await;
            tracing::warn!(signal, "exiting at the second signal");
            #[allow(clippy::exit, clippy::disallowed_methods, reason = "the user requested an immediate exit")]
            std::process::exit(1);
        });
    }
}
