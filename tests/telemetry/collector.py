"""A collector of OpenTelemetry traces: receives OTLP over HTTP, decodes it with OpenTelemetry's own protobuf types, and counts spans by name.

    collector.py PORT_FILE COUNTS_FILE
"""

import collections
import http.server
import json
import pathlib
import sys

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

port_file, counts_file = map(pathlib.Path, sys.argv[1:3])
counts = collections.Counter()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf", self.path
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            # The export of `espalier doctor` has none.
            spans = [span for scope in resource.scope_spans for span in scope.spans]
            names = {attribute.key for attribute in resource.resource.attributes}
            assert not spans or {"service.name", "service.version", "service.instance.id"} <= names, names
            for span in spans:
                assert len(span.trace_id) == 16 and len(span.span_id) == 8
                assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
                counts[span.name] += 1
        counts_file.write_text(json.dumps(counts))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
port_file.write_text(str(server.server_address[1]))
server.serve_forever()
