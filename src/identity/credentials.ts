import { join } from 'node:path'
import { stringify } from 'yaml'
import { z } from 'zod'
import { DamagedFile, readTextFile, writeTextFile } from '../runtime/files.ts'
import type { Log } from '../runtime/log.ts'
import type { Random } from '../runtime/random.ts'
import { DOMAIN, REGION } from './constants.ts'
import { hashPassword } from './password.ts'

const ACCOUNT_FILE = 'identity.json'
const OPENRC_FILE = 'openrc'
const CLOUDS_FILE = 'clouds.yaml'

const USER_NAME = 'admin'
const PROJECT_NAME = 'collie'
const PASSWORD_BYTES = 18
const PRIVATE = 0o600

/** The newest microversion for which Debian 12's client still creates snapshots: from 3.66 on its "force" is refused. */
const CLIENT_MICROVERSION = '3.65'

const LocalAccount = z.object({
  userId: z.string(),
  userName: z.string(),
  projectId: z.string(),
  projectName: z.string(),
  passwordHash: z.string(),
})

/** The one account of `auth: local`, kept in `<data dir>/identity.json`. */
export type LocalAccount = z.output<typeof LocalAccount>

/**
 * Makes the account and its credentials at the first start, and finds them again at later ones.
 *
 * The password itself is written only to openrc and clouds.yaml, for the operator to use, copy or move away; the
 * server keeps a hash. When the server has moved to another address, the address in those files follows.
 */
export async function ensureLocalIdentity(options: {
  dataDir: string
  /** Where clients reach this server, without a slash at the end: `http://127.0.0.1:8776`. */
  baseUrl: string
  random: Random
  log: Log
}): Promise<LocalAccount> {
  const { dataDir, baseUrl, random, log } = options
  const authUrl = `${baseUrl}/identity/v3`
  const openrc = join(dataDir, OPENRC_FILE)
  const clouds = join(dataDir, CLOUDS_FILE)
  const saved = readTextFile(join(dataDir, ACCOUNT_FILE))
  if (saved !== null) {
    replaceIn(openrc, /^(export OS_AUTH_URL=).*$/m, authUrl)
    replaceIn(clouds, /^( *auth_url: ).*$/m, authUrl)
    return parseAccount(saved, join(dataDir, ACCOUNT_FILE))
  }

  const password = random.bytes(PASSWORD_BYTES).toString('base64url')
  const account: LocalAccount = {
    userId: randomId(random),
    userName: USER_NAME,
    projectId: randomId(random),
    projectName: PROJECT_NAME,
    passwordHash: await hashPassword(password, random),
  }
  // The account comes last: after a crash before it the next start makes all three anew, and they agree.
  writeTextFile(openrc, openrcOf(account, password, authUrl), PRIVATE)
  writeTextFile(clouds, cloudsOf(account, password, authUrl), PRIVATE)
  writeTextFile(join(dataDir, ACCOUNT_FILE), `${JSON.stringify(account, null, 2)}\n`, PRIVATE)
  log.info({ openrc, clouds }, 'made an account; its credentials are in these files')
  return account
}

function parseAccount(text: string, path: string): LocalAccount {
  try {
    return LocalAccount.parse(JSON.parse(text))
  } catch (error) {
    throw new DamagedFile(path, error as Error)
  }
}

function openrcOf(account: LocalAccount, password: string, authUrl: string): string {
  const variables = {
    OS_AUTH_URL: authUrl,
    OS_USERNAME: account.userName,
    OS_PASSWORD: password,
    OS_PROJECT_NAME: account.projectName,
    OS_USER_DOMAIN_NAME: DOMAIN.name,
    OS_USER_DOMAIN_ID: DOMAIN.id,
    OS_PROJECT_DOMAIN_NAME: DOMAIN.name,
    OS_PROJECT_DOMAIN_ID: DOMAIN.id,
    OS_IDENTITY_API_VERSION: '3',
    OS_REGION_NAME: REGION,
    OS_VOLUME_API_VERSION: CLIENT_MICROVERSION,
  }
  const lines = Object.entries(variables).map(([name, value]) => `export ${name}=${value}`)
  return `# Credentials for openstack, cinder and other clients: ". ${OPENRC_FILE}"\n${lines.join('\n')}\n`
}

function cloudsOf(account: LocalAccount, password: string, authUrl: string): string {
  return stringify({
    clouds: {
      collie: {
        auth: {
          auth_url: authUrl,
          username: account.userName,
          password,
          project_name: account.projectName,
          user_domain_id: DOMAIN.id,
          project_domain_id: DOMAIN.id,
        },
        region_name: REGION,
        identity_api_version: '3',
        volume_api_version: CLIENT_MICROVERSION,
      },
    },
  })
}

/** Writes `value` behind what the first group of `line` matches. A file that the operator removed stays away. */
function replaceIn(path: string, line: RegExp, value: string): void {
  const text = readTextFile(path)
  const changed = text?.replace(line, (_, key: string) => key + value)
  if (changed !== undefined && changed !== text) writeTextFile(path, changed, PRIVATE)
}

/** Ids as Keystone makes them: hexadecimal, without dashes. */
function randomId(random: Random): string {
  return random.bytes(16).toString('hex')
}
