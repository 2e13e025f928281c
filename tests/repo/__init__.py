"""What must hold of the repository itself: imports, vocabulary, files, deployment, documents."""
