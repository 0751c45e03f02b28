"""The Python SDK, sync and asyncio. It denies where it cannot ask."""
