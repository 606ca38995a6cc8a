// Android's state of an activity.

package android.os

class Bundle
