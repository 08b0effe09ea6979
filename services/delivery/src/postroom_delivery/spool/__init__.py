"""The spool: where an accepted message lives until every recipient has an end. Schema, SQL and drivers are here and nowhere else."""
