"""What `doctor` looks at before the first night: Spark, its workers, the places of files, Milvus; nothing lasts."""
