"""A double of Milvus servers from 2.4.13 to 3.0.2, as strict as their source says that they are.

    with MilvusDouble(PROFILES["2.6.7"]) as server:
        index = connect(Settings(milvus={"uri": server.uri}))

`TASKS` stands beside them for the imports of 2.3.5, the version that tests have as a real server.

Nothing here has met such a server: each rule is *known from source, not run*. What it was read from stands in
`facts.py`, with the versions that it holds for, and a rule asks there whether it holds (`Profile.has`). A page made of
it is docs/decisions/milvus-servers.md.

| module | what is in it |
| --- | --- |
| `facts` | what was read, of which versions, where, and how sure it is |
| `profiles` | the versions, each as the facts that hold for it |
| `clock` | time that runs faster than ours, so that thirty seconds of a server are no thirty of a test |
| `store` | collections and segments, rows and deletes: what is visible, and what is still stored |
| `imports` | import jobs: their states, limits, files, deadlines, keys, and when they are forgotten |
| `compaction` | L0 and other compactions, and what the server does by itself |
| `rights` | users, roles and grants, by database |
| `core` | all that a server keeps, and what it is told to do wrong |
| `rest`, `rpc` | the two interfaces: import jobs over HTTP, everything else over gRPC by pymilvus's own stubs |
| `double` | one port for both, as the servers have it; start, stop, start again |
"""
