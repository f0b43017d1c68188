//! Counters: every drop has exactly one reason and every reason one counter.
