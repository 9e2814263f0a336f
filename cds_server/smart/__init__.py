"""SMART App Launch 2.2: people who open the server's page from an EHR, and jobs that read an EHR."""
