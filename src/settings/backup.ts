import { z } from 'zod'
import { cafile } from './cafile.ts'

const text = z.string().min(1)
const optionalText = text.nullable().default(null)
const httpUrl = z.url({ protocol: /^https?$/ })
const timeoutSeconds = z
  .int()
  .min(1)
  .max(45)
  .default(30)
  .describe('How long it may stay silent before a request is repeated.')

/** Where backups are kept. */
export const BACKUP = z
  .strictObject({
    target: z
      .enum(['directory', 's3', 'swift'])
      .default('directory')
      .describe(
        'Where backups are kept: in a directory, in S3 or what speaks its protocol (`backup_s3`), in Swift (`backup_swift`).',
      ),
    directory: optionalText.describe(
      'The directory, best on another host; by default `backups` in the data directory. Created when absent.',
    ),
  })
  .prefault({})

export const BACKUP_S3 = z
  .strictObject({
    endpoint: httpUrl
      .nullable()
      .default(null)
      .describe('Where S3 is, `https://host:port`; by default Amazon’s of the region.'),
    region: text.default('us-east-1').describe('The region of the bucket, which signatures name.'),
    bucket: optionalText.describe('The bucket that backups are kept in, for `backup.target: s3`. It has to be there.'),
    prefix: z
      .string()
      .regex(/^([\w.-]+\/)*[\w.-]*$/, { error: 'expected names of letters, digits, `.`, `_` and `-`, joined by `/`' })
      .nullable()
      .default(null)
      .describe('Below which its objects begin, for a bucket that has others too: `cloud-1/`.'),
    access_key: optionalText.describe('The key that may read, write, list and delete there.'),
    secret_key: optionalText.meta({ isSecret: true }).describe('Its secret. Best in the environment.'),
    addressing: z
      .enum(['path', 'host'])
      .default('path')
      .describe('Where requests name the bucket: in the path, or before the name of the host.'),
    cafile: cafile('its certificate'),
    timeout_seconds: timeoutSeconds,
  })
  .prefault({})

export const BACKUP_SWIFT = z
  .strictObject({
    auth: z
      .enum(['keystone', 'v1'])
      .default('keystone')
      .describe('Who gives tokens: Keystone, or Swift by itself with a user and a key in headers (`v1`, tempauth).'),
    auth_url: httpUrl
      .nullable()
      .default(null)
      .describe('Where, for `backup.target: swift`: `http://host:5000/v3`, or `http://host:8080/auth/v1.0`.'),
    username: text.default('cinder').describe('The account; for `v1` it may be `account:user`.'),
    password: optionalText.meta({ isSecret: true }).describe('Its password. Best in the environment.'),
    project: text.default('service').describe('Its project, of Keystone, whose objects they are.'),
    user_domain: text.default('Default').describe('Name of its domain.'),
    project_domain: text.default('Default').describe("Name of its project's domain."),
    region: optionalText.describe('Region whose Swift it is; by default any.'),
    interface: z
      .enum(['public', 'internal', 'admin'])
      .default('public')
      .describe('Which of the endpoints in the catalog.'),
    url: httpUrl
      .nullable()
      .default(null)
      .describe('Where the account is, `http://host:8080/v1/AUTH_…`, when not where the catalog or the login says.'),
    container: z
      .string()
      .regex(/^[^/]{1,256}$/, { error: 'expected up to 256 characters without `/`' })
      .default('volumebackups')
      .describe('The container of Swift that backups are kept in. Created when absent.'),
    cafile: cafile('the certificates of Swift and its Keystone'),
    timeout_seconds: timeoutSeconds,
  })
  .prefault({})
