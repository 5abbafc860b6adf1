"""What every stage stands on: settings, services, locks, processes."""
