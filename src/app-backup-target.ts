import assert from 'node:assert/strict'
import path from 'node:path'
import type { Config } from './config.ts'
import { ServiceError } from './errors.ts'
import { createKeystoneAccount } from './keystone/account.ts'
import { systemClock } from './runtime/clock.ts'
import { createKeptHttp } from './runtime/http-client.ts'
import { systemRandom } from './runtime/random.ts'
import { openSystemDisk } from './runtime/system-disk.ts'
import { loadAuthorities } from './runtime/tls.ts'
import { createDirectoryTarget } from './services/backup/directory-target.ts'
import { keystoneLogin, legacyLogin, type SwiftLogin } from './services/backup/swift-login.ts'
import type { BackupTarget } from './services/backup/target.ts'

type OpenTarget = (config: Config) => Promise<BackupTarget>

const BACKUP_DIRECTORY = 'backups'

/** The protocols of object stores are loaded by those who use them. */
const OPEN: Readonly<Record<Config['backup']['target'], OpenTarget>> = {
  directory: async ({ backup, data_dir }) => {
    const directory = path.resolve(backup.directory ?? path.join(data_dir, BACKUP_DIRECTORY))
    const disk = openSystemDisk(directory)
    try {
      await disk.makeDirectory('.')
    } catch (error) {
      const reason = `the backup target, at ${directory}: ${(error as Error).message}`
      throw new ServiceError('BackendFailure', { reason }, { cause: error })
    }
    return createDirectoryTarget(disk, () => disk.close())
  },

  s3: async ({ backup_s3: s3 }) => {
    const { bucket, access_key: accessKey, secret_key: secretKey } = s3
    assert(bucket !== null && accessKey !== null && secretKey !== null, '`backup.target: s3` without them is refused')
    const { createS3Target } = await import('./services/backup/s3-target.ts')
    return createS3Target(ports('backup_s3.cafile', s3.cafile), {
      bucket,
      accessKey,
      secretKey,
      endpoint: s3.endpoint ?? `https://s3.${s3.region}.amazonaws.com`,
      region: s3.region,
      prefix: s3.prefix ? s3.prefix.replace(/\/?$/, '/') : '',
      addressing: s3.addressing,
      timeoutMs: s3.timeout_seconds * 1000,
    })
  },

  swift: async ({ backup_swift: swift }) => {
    const { container, cafile, timeout_seconds } = swift
    const { createSwiftTarget } = await import('./services/backup/swift-target.ts')
    const kept = ports('backup_swift.cafile', cafile)
    return createSwiftTarget(kept, swiftLogin(swift, kept), { container, timeoutMs: timeout_seconds * 1000 })
  },
}

/** Where the settings say that backups are kept. What is in another place is not asked before it is needed. */
export const openBackupTarget: OpenTarget = (config) => OPEN[config.backup.target](config)

function ports(setting: string, cafile: string | null) {
  const http = createKeptHttp(loadAuthorities(setting, cafile))
  return { http, clock: systemClock, random: systemRandom, close: () => http.close() }
}

function swiftLogin(swift: Config['backup_swift'], kept: ReturnType<typeof ports>): SwiftLogin {
  const { auth_url: authUrl, password, url } = swift
  assert(authUrl !== null && password !== null, '`backup.target: swift` without them is refused')
  const timeoutMs = swift.timeout_seconds * 1000
  if (swift.auth === 'v1') return legacyLogin(kept, { authUrl, user: swift.username, key: password, url, timeoutMs })
  const account = createKeystoneAccount({
    http: kept.http,
    clock: systemClock,
    authUrl,
    userName: swift.username,
    password,
    projectName: swift.project,
    userDomainName: swift.user_domain,
    projectDomainName: swift.project_domain,
    interface: swift.interface,
    regionName: swift.region,
    timeoutMs,
    refusal: (reason) => new ServiceError('BackendFailure', { reason: `the backup target: ${reason}` }),
  })
  return keystoneLogin(account, url)
}
