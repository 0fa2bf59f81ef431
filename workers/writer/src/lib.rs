//! From stream to table: read, decode, batch, COPY, settle. Generic over the record kind.
