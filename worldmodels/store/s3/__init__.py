"""Buckets as stores; needs boto3 and tenacity."""
