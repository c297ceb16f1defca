//! Every requirement is pinned by a test that exists, or says why it is not.
