-- W3C trace context of the request that queued the job: traceparent, and after a space tracestate if there is one.
alter table jobs add column trace_context text;
