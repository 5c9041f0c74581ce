"""The decision about one request: its gate, its options, its exemptions."""
