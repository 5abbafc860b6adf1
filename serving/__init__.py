"""The endpoint: Ray Serve application, vector store, release and search page."""
