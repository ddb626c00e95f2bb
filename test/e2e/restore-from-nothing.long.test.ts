import { BUCKET, openS3Target, S3_REGION, SWIFT_PASSWORD, SWIFT_USER, sharedSwift, withSwift } from '../tools/swift.ts'
import { loseAndRestore } from './restore-from-nothing.ts'

withSwift('brings volumes back from S3', async () => {
  const { url } = await sharedSwift()
  await (await openS3Target()).close() // makes the bucket
  await loseAndRestore([
    '--backup-target=s3',
    `--backup-s3-endpoint=${url}`,
    `--backup-s3-region=${S3_REGION}`,
    `--backup-s3-bucket=${BUCKET}`,
    `--backup-s3-access-key=${SWIFT_USER}`,
    `--backup-s3-secret-key=${SWIFT_PASSWORD}`,
  ])
})

withSwift('brings volumes back from Swift', async () => {
  const { url } = await sharedSwift()
  await loseAndRestore([
    '--backup-target=swift',
    '--backup-swift-auth=v1',
    `--backup-swift-auth-url=${url}/auth/v1.0`,
    `--backup-swift-username=${SWIFT_USER}`,
    `--backup-swift-password=${SWIFT_PASSWORD}`,
  ])
})
