"""Serializers of the media types that Schemathesis does not know: files are sent as they are."""

import schemathesis


@schemathesis.serializer("application/jsonl", "text/csv", "text/tab-separated-values")
def file_content(_context, value):
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
