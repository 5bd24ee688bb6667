"""A package to pytest, so that what has the scope "package" (lab, guest, containerd) ends with its last test."""
