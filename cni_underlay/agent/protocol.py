"""The frames between client and agent: one each way on a unix stream socket, integers in network byte order.

Request, with the namespace of CNI_NETNS attached as one SCM_RIGHTS descriptor to its first byte where it could be opened::

    0   4  magic b"UNL1"
    4   4  kind: 1 a CNI call, 2 an admin call
    8   4  errno of opening CNI_NETNS, 0 when it was opened, not set, or empty
    12  4  length of the environment block
    16  4  length of the body
    20     environment block: "KEY=VALUE" strings, each ended by a NUL; the first is "argv0=<name the client was started as>"
    ..     body: standard input of the CNI call, untouched; a JSON object for an admin call

Answer::

    0   4  magic b"UNL1"
    4   4  exit status for the client
    8   4  length of standard output
    12  4  length of standard error
    16     standard output, then standard error, both printed untouched

A spooled DEL is a file that holds exactly the request frame, without the descriptor.
"""
