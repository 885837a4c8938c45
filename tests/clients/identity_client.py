"""Clients that insist on a credential of the cloud: the managed-identity call, answered where `msi_token` is set."""

import os
import warnings

import common

os.environ.update(IDENTITY_ENDPOINT=f"{common.URL}/msi/token", IDENTITY_HEADER=common.KEY, AZURE_TOKEN_CREDENTIALS="ManagedIdentityCredential")

warnings.filterwarnings("ignore")

from azure.identity import DefaultAzureCredential
from langchain_azure_dynamic_sessions import SessionsPythonREPLTool

from common import equal


def gets_its_key_as_a_token():
    equal(DefaultAzureCredential().get_token("https://dynamicsessions.io/.default").token, common.KEY)


def needs_nothing_else(endpoint):
    tool = SessionsPythonREPLTool(pool_management_endpoint=endpoint, session_id=common.session())
    equal(tool.execute("6*7")["result"], 42)
    tool.delete_session()


common.main([gets_its_key_as_a_token, needs_nothing_else])
