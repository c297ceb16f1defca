//! Logs to standard error; traces and metrics to an OTLP collector, if one is configured.

use crate::{
    config::{Config, LogFormat},
    log_lines::LogLines,
};
use anyhow::Result;
use async_trait::async_trait;
use opentelemetry::{
    global,
    logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity},
    trace::TracerProvider as _,
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    logs::{SdkLogger, SdkLoggerProvider},
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::SdkTracerProvider,
};
use passavant_host as system;
use passavant_outbound::Outbound;
use passavant_proto::formerly;
use std::time::Duration;
use tokio::runtime::Handle;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// What has to be flushed at the end.
pub struct Telemetry {
    exporters: Option<Providers>,
    log: LogLines,
}

struct Providers {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
    records: SdkLoggerProvider,
}

/// Exports a gateway's record of calls, in addition to its journal.
pub struct Records(SdkLogger);

impl Records {
    /// Exports one line of the journal.
    pub fn tell(&self, line: &str) {
        let mut record = self.0.create_log_record();
        record.set_event_name("passavant.mcp_call");
        record.set_severity_number(Severity::Info);
        record.set_body(AnyValue::from(line.to_owned()));
        self.0.emit(record);
    }
}

/// Logging for commands other than `serve`: warnings only.
pub fn quiet() {
    let asked = system::variable("PASSAVANT_LOG").and_then(|asked| asked.into_string().ok());
    let filter = asked.and_then(|asked| EnvFilter::try_new(of_now(&asked)).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("off"));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter);
    // Only tests set a subscriber before, which may stay.
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

/// A filter in which our crates may have the names of earlier builds.
fn of_now(filter: &str) -> String {
    let directives =
        filter.split(',').map(|directive| match directive.strip_prefix(formerly::NAME) {
            Some(rest) => format!("{}{rest}", formerly::NOW),
            None => directive.to_owned(),
        });
    directives.collect::<Vec<_>>().join(",")
}

/// Starts logging and, if configured, OTLP export.
pub fn start(config: &Config, outbound: &Outbound) -> Result<Telemetry> {
    // Libraries log statements and headers at lower levels; our own logs never contain a secret.
    let default = "warn,passavant=info";
    let filter = EnvFilter::try_new(of_now(config.log.filter.as_deref().unwrap_or(default)))?;
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = LogLines::start(std::io::stderr(), config.log.format)?;
    let format = tracing_subscriber::fmt::layer().with_writer(log.clone()).with_ansi(terminal);
    let format = match config.log.format {
        LogFormat::Text => format.with_filter(filter).boxed(),
        LogFormat::Json => format.json().with_filter(filter).boxed(),
    };
    let Some(endpoint) = &config.otlp_endpoint else {
        tracing_subscriber::registry().with(format).try_init()?;
        return Ok(Telemetry { exporters: None, log });
    };
    let http = Exporter { http: outbound.streaming(endpoint)?, runtime: Handle::current() };
    let resource = Resource::builder().with_service_name("passavant").build();
    let endpoint = endpoint.trim_end_matches('/');
    let spans = SpanExporter::builder()
        .with_http()
        .with_http_client(http.clone())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .build()?;
    let records = LogExporter::builder()
        .with_http()
        .with_http_client(http.clone())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{endpoint}/v1/logs"))
        .build()?;
    let records = SdkLoggerProvider::builder()
        .with_resource(resource.clone())
        .with_batch_exporter(records)
        .build();
    let metrics = MetricExporter::builder()
        .with_http()
        .with_http_client(http)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{endpoint}/v1/metrics"))
        .build()?;
    let tracer = SdkTracerProvider::builder()
        .with_resource(resource.clone())
        .with_batch_exporter(spans)
        .build();
    let reader = PeriodicReader::builder(metrics).with_interval(Duration::from_secs(15)).build();
    let meter = SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build();
    global::set_meter_provider(meter.clone());
    let ours = EnvFilter::new("off,passavant=info");
    let traces =
        tracing_opentelemetry::layer().with_tracer(tracer.tracer("passavant")).with_filter(ours);
    tracing_subscriber::registry().with(format).with(traces).try_init()?;
    let exporters = Some(Providers { traces: tracer, metrics: meter, records });
    Ok(Telemetry { exporters, log })
}

impl Telemetry {
    /// The exporter for records of calls, if there is a collector.
    pub fn records(&self) -> Option<Records> {
        self.exporters
            .as_ref()
            .map(|providers| Records(providers.records.logger("passavant.gateway")))
    }

    /// Sends what has not been sent yet.
    pub async fn stop(mut self) {
        let Some(Providers { traces, metrics, records }) = self.exporters.take() else { return };
        let patience = Duration::from_secs(3);
        let flushed = tokio::task::spawn_blocking(move || {
            (
                traces.shutdown_with_timeout(patience),
                metrics.shutdown_with_timeout(patience),
                records.shutdown_with_timeout(patience),
            )
        });
        if !matches!(flushed.await, Ok((Ok(()), Ok(()), Ok(())))) {
            tracing::warn!("the last traces, metrics or records did not reach the collector");
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.log.finish();
    }
}

/// Our restricted HTTP client as the exporters' transport. They run on threads of their own, so
/// requests are handed to the runtime.
#[derive(Clone, Debug)]
struct Exporter {
    http: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Exporter {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self.runtime.spawn(async move {
            let mut request: reqwest::Request = request.try_into()?;
            *request.timeout_mut() = Some(Duration::from_secs(5));
            let answer = http.execute(request).await?;
            let status = answer.status();
            let response = Response::builder().status(status).body(answer.bytes().await?)?;
            Ok::<_, HttpError>(response)
        });
        sent.await?
    }
}
